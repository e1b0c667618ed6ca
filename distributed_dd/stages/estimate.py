"""Memory, disk and work of an experiment, before anything starts."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from distributed_dd.data import Facts
from distributed_dd.distillation.networks import initialised
from distributed_dd.stages.experiment import Experiment
from distributed_dd.trajectories.forms import Form, Full

FLOAT = 4
# One training step is a forward and two backward products; a replayed outer step repeats the inner
# gradient and back-propagates through it: 3 + 3 + 6 forward passes.
TRAIN_FACTOR, UNROLL_FACTOR = 3, 12


def lines(experiment: Experiment, facts: Facts, num_missing: int) -> Iterator[str]:
    """The estimate, a line a topic. Sizes are exact; operations count convolutions and products only."""
    e = experiment
    network = initialised(e.network, facts.image_shape, facts.num_classes, torch.Generator())
    num_parameters = sum(p.numel() for p in network.parameters())
    checkpoint = num_parameters * FLOAT
    yield f"disk      {_disk(e, num_parameters)}"
    num_images = e.images_per_class * facts.num_classes
    batch = min(num_images, e.method.batch_size)
    stored = (e.method.student_steps + 1) * checkpoint
    yield f"memory    {size(stored)} for the stored student parameters of an outer step, batch {batch}"
    forward = forward_flops(network, facts)
    expert_work = num_missing * e.experts.num_epochs * facts.num_train * e.experts.optimizer.passes
    expert_work *= TRAIN_FACTOR * forward
    distill_work = e.num_outer_steps * e.method.student_steps * batch * UNROLL_FACTOR * forward
    sets = e.evaluate.num_networks * 5
    scored = sets * e.evaluate.num_epochs * num_images
    scored += e.evaluate.num_networks * e.evaluate.num_epochs_full_data * facts.num_train
    work = {"experts": expert_work, "distill": distill_work, "evaluate": scored * TRAIN_FACTOR * forward}
    digits = 1 if sum(work.values()) > 1e14 else 3
    parts = ", ".join(f"{stage} {value / 1e12:,.{digits}f}" for stage, value in work.items())
    yield (
        f"work      {sum(work.values()) / 1e12:,.{digits}f} TFLOP ({parts}); a core does some 0.02 to 0.1 a "
        "second, a GPU some 20"
    )


def _disk(e: Experiment, num_parameters: int) -> str:
    """Bytes of the finished store, and what keeping less would take."""
    needed = e.method.epochs_used(e.experts.num_epochs)

    def store(form: Form) -> int:
        return e.experts.num_experts * form.bytes_per_expert(e.experts.num_epochs, needed, num_parameters)

    form = e.experts.trajectory
    own = store(form)
    text = f"{size(own)} for {e.experts.num_experts} experts of {num_parameters:,} parameters"
    if isinstance(form, Full):
        window = size(store(replace(form, keep_epochs="window")))
        text += f" ({window} with experts.trajectory.keep_epochs=window)" if window != size(own) else ""
    return text


def forward_flops(network: nn.Module, facts: Facts) -> int:
    """Floating-point operations of one image's forward pass."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network.eval()(torch.zeros(1, *facts.image_shape))
    return counter.get_total_flops()


def size(num_bytes: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} TiB"
