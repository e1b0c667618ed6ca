"""What a kernel regression takes: counted in pairs of images, which `show` says beside operations."""

from math import prod

from distributed_dd.learning.kernels import Kernel
from distributed_dd.outer.scale import Scale, Work
from distributed_dd.outer.set_method import work_of_a_set
from distributed_dd.outer.work import forward_flops_of

OPERATIONS = 150
"""Of one pair of positions at one ReLU with its convolution, forward and back, elementwise."""
SECONDS_OF_A_CORE = 6.5e-8
"""Of the same, float32, on one thread of a busy AMD EPYC: 17 ms of CPU time a pair of 28 x 28 images; a guide only."""


def work_of(kernel: Kernel, batch_size: int, scale: Scale) -> Work:
    """As of any set; the pairs of an outer step are of real images with the set, and of the set with itself."""
    facts = scale.facts
    num_images = scale.images_per_class * facts.num_classes
    num_real = min(batch_size, facts.num_train)
    num_pairs = num_images * num_real + num_images * (num_images + 1) // 2
    positions = kernel.pairs_cost(facts.image_shape)
    products = 6 * prod(facts.image_shape) * num_pairs
    operations = OPERATIONS * positions * num_pairs + products
    work = work_of_a_set(scale, operations / forward_flops_of(scale.network, facts))
    seconds = positions * num_pairs * SECONDS_OF_A_CORE
    line = (
        f"kernel    {num_pairs:,} pairs of images in an outer step, {positions:,} positions in each: some "
        f"{_duration(seconds)} of one core, {_duration(seconds * scale.num_outer_steps)} in all"
    )
    return Work([*work.lines, line], work.operations)


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
