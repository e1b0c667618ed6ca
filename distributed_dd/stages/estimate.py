"""Memory, disk and work of an experiment, before anything starts."""

from collections.abc import Iterator

import torch
from torch.utils.flop_counter import FlopCounterMode

from distributed_dd.data import Splits
from distributed_dd.distillation.networks import initialised
from distributed_dd.stages.experiment import Experiment
from distributed_dd.training.optimizers import GSAM

FLOAT = 4
# One training step is a forward and two backward products; a replayed outer step repeats the inner
# gradient and back-propagates through it: 3 + 3 + 6 forward passes.
TRAIN_FACTOR, UNROLL_FACTOR = 3, 12


def lines(experiment: Experiment, num_parameters: int, splits: Splits, num_missing: int) -> Iterator[str]:
    """The estimate, a line a topic. Sizes are exact; operations count convolutions and products only."""
    e = experiment
    checkpoint = num_parameters * FLOAT
    disk = e.experts.num_experts * (e.experts.num_epochs + 1) * checkpoint
    yield f"disk      {size(disk)} for {e.experts.num_experts} experts of {num_parameters:,} parameters"
    num_images = e.images_per_class * splits.num_classes
    batch = min(num_images, e.method.batch_size)
    stored = (e.method.student_steps + 1) * checkpoint
    yield f"memory    {size(stored)} for the stored student parameters of an outer step, batch {batch}"
    forward = forward_flops(experiment, splits)
    passes = 2 if isinstance(e.experts.optimizer, GSAM) else 1
    expert_work = num_missing * e.experts.num_epochs * len(splits.train) * passes * TRAIN_FACTOR * forward
    distill_work = e.num_outer_steps * e.method.student_steps * batch * UNROLL_FACTOR * forward
    sets = e.evaluate.num_networks * 5
    scored = sets * e.evaluate.num_epochs * num_images
    scored += e.evaluate.num_networks * e.evaluate.num_epochs_full_data * len(splits.train)
    work = {"experts": expert_work, "distill": distill_work, "evaluate": scored * TRAIN_FACTOR * forward}
    parts = ", ".join(f"{stage} {value / 1e12:,.1f}" for stage, value in work.items())
    yield f"work      {sum(work.values()) / 1e12:,.1f} TFLOP ({parts}); a slow core does some 0.02 a second"


def forward_flops(experiment: Experiment, splits: Splits) -> int:
    """Floating-point operations of one image's forward pass."""
    network = initialised(experiment.network, splits.image_shape, splits.num_classes, torch.Generator())
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(torch.zeros(1, *splits.image_shape))
    return counter.get_total_flops()


def size(num_bytes: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} TiB"
