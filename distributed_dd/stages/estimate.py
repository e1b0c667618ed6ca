"""Memory, disk and work of an experiment, before anything starts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil, prod

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from distributed_dd.data import Facts
from distributed_dd.distillation.networks import initialised
from distributed_dd.distillation.student import Student
from distributed_dd.distillation.unroll.replayed import student_step
from distributed_dd.stages.experiment import Experiment
from distributed_dd.stages.live_bytes import peak_live_bytes
from distributed_dd.trajectories.forms import Form, Full

FLOAT = 4
# One training step is a forward and two backward products; a replayed outer step repeats the inner
# gradient and back-propagates through it: 3 + 3 + 6 forward passes.
TRAIN_FACTOR, UNROLL_FACTOR = 3, 12


@dataclass(frozen=True)
class Sharing:
    """How much of a distillation falls to one process.

    Attributes:
        who: as a person calls it.
        num_ranks: ranks that keep a part of the set each. group_size: ranks that share a batch, and what an
            unroll stores.
        copies: of its part of the set, momenta and gradients included (measured: docs/sharded.md).
    """

    who: str
    num_ranks: int
    group_size: int
    copies: float


ALWAYS_TOLD = (
    Sharing("one process", 1, 1, 3.0),
    Sharing("each of 4 ranks that share a batch and own rows", 4, 4, 5.0),
    Sharing("each of 16", 16, 16, 5.0),
)


def lines(
    experiment: Experiment, facts: Facts, num_missing: int, asked: Sharing | None = None
) -> Iterator[str]:
    """The estimate, a line a topic. Sizes are exact; operations count convolutions and products only.

    ``asked``: whose memory is told first, beside those of one process and of 4 and 16 ranks.
    """
    e = experiment
    network = initialised(e.network, facts.image_shape, facts.num_classes, torch.Generator())
    num_parameters = sum(p.numel() for p in network.parameters())
    yield f"disk      {_disk(e, num_parameters)}"
    num_images = e.images_per_class * facts.num_classes
    batch = min(num_images, e.matching.batch_size)
    yield f"memory    at most, in an outer step of batch {batch}"
    for sharing in (*([asked] if asked else ()), *ALWAYS_TOLD):
        yield f"          {sharing.who}: {memory(e, facts, network, sharing)}"
    forward = forward_flops(network, facts)
    expert_work = num_missing * e.experts.num_epochs * facts.num_train * e.experts.optimizer.passes
    expert_work *= TRAIN_FACTOR * forward
    distill_work = e.num_outer_steps * e.matching.student_steps * batch * UNROLL_FACTOR * forward
    sets = e.evaluate.num_networks * 5
    scored = sets * e.evaluate.num_epochs * num_images
    scored += e.evaluate.num_networks * e.evaluate.num_epochs_full_data * facts.num_train
    work = {"experts": expert_work, "distill": distill_work, "evaluate": scored * TRAIN_FACTOR * forward}
    yield work_line(work)


def work_line(work: Mapping[str, float]) -> str:
    """Floating-point operations of each stage."""
    digits = 1 if sum(work.values()) > 1e14 else 3
    parts = ", ".join(f"{stage} {value / 1e12:,.{digits}f}" for stage, value in work.items())
    return (
        f"work      {sum(work.values()) / 1e12:,.{digits}f} TFLOP ({parts}); a core does some 0.02 to 0.1 "
        f"TFLOP a second, a GPU some 20 ({sum(work.values()) / 20e12 / 3600:,.1f} h)"
    )


@dataclass(frozen=True)
class Memory:
    """Bytes of a process while it makes an outer step, beside what torch itself takes."""

    synthetic_set: int
    stored: int
    activations: int

    def __str__(self) -> str:
        total = self.synthetic_set + self.stored + self.activations
        return (
            f"{size(total)} (set {size(self.synthetic_set)}, stored student parameters {size(self.stored)}, "
            f"student step {size(self.activations)})"
        )


def memory(e: Experiment, facts: Facts, network: nn.Module, sharing: Sharing) -> Memory:
    """What a process holds at most in an outer step; its student step is that of a small batch, scaled up."""
    num_images = e.images_per_class * facts.num_classes
    labels = facts.num_classes if e.matching.labels.learned else 0
    row = (prod(facts.image_shape) + labels) * FLOAT
    batch = ceil(min(num_images, e.matching.batch_size) / sharing.group_size)
    student = Student(network)
    stored = e.matching.student_steps * student.num_parameters * FLOAT // sharing.group_size
    held = int(sharing.copies * row * ceil(num_images / sharing.num_ranks))
    return Memory(held, stored, _student_step(student, facts, batch))


def _student_step(student: Student, facts: Facts, batch: int) -> int:
    """Bytes at most in one replayed student step."""

    def peak(count: int) -> int:
        theta = torch.zeros(student.num_parameters)
        images, labels = torch.zeros(count, *facts.image_shape), torch.zeros(count, facts.num_classes)
        _, reverse = student_step(student, False)
        return peak_live_bytes(lambda: reverse(theta, images, labels, theta))

    one, two = peak(1), peak(2)
    return one + (batch - 1) * (two - one)


def _disk(e: Experiment, num_parameters: int) -> str:
    """Bytes of the finished store, and what keeping less would take."""
    needed = e.matching.epochs_used(e.experts.num_epochs)

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
