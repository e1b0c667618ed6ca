"""Memory, disk and work of trajectory matching, before anything starts. Sizes are exact."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import ceil

import torch
from torch import nn

from distributed_dd.data import Facts
from distributed_dd.learning.flat import Student
from distributed_dd.learning.networks import initialised
from distributed_dd.methods.trajectory_matching.reach import notes_of
from distributed_dd.methods.trajectory_matching.settings import TrajectorySettings
from distributed_dd.outer.live_bytes import peak_live_bytes
from distributed_dd.outer.scale import Scale, Work
from distributed_dd.outer.sharing import ALWAYS_TOLD, Sharing
from distributed_dd.outer.work import FLOAT, TRAIN_FACTOR, counted_once, evaluation_operations, forward_flops_of, size
from distributed_dd.trajectories.forms import Form, Full
from distributed_dd.unroll import Replayed
from distributed_dd.unroll.kept import bytes_of_a_step
from distributed_dd.unroll.replayed import student_step

# A replayed outer step repeats the inner gradient and back-propagates through it: 3 + 3 + 6 forward passes.
UNROLL_FACTOR = 12
START = 1
"""Sets that controls train on beside chosen images: the one that was started from."""


def work_of(method: TrajectorySettings, scale: Scale) -> Work:
    """The estimate; whose memory ``scale.asked`` is told first, beside one process and 4 and 16 ranks."""
    facts, experts = scale.facts, method.experts
    network = initialised(scale.network, facts.image_shape, facts.num_classes, torch.Generator())
    forward = forward_flops_of(scale.network, facts)
    num_images = scale.images_per_class * facts.num_classes
    batch = min(num_images, method.batch_size)
    missing = experts.num_experts if scale.missing is None else scale.missing
    expert = missing * experts.num_epochs * facts.num_train * experts.optimizer.passes * TRAIN_FACTOR * forward
    distill = scale.num_outer_steps * method.student_steps * batch * UNROLL_FACTOR * forward
    num_sets = method.num_sets + START + 2 * len(scale.evaluate.controls)  # with hard labels, and with soft ones
    evaluate = evaluation_operations(scale, num_images, num_sets, forward)
    operations = {"experts": expert, "distill": distill, "evaluate": evaluate}
    return Work([*_lines(method, scale, network, batch)], operations)


def _lines(method: TrajectorySettings, scale: Scale, network: nn.Module, batch: int) -> Iterator[str]:
    yield f"disk      {_disk(method, sum(p.numel() for p in network.parameters()))}"
    yield f"memory    at most, in an outer step of batch {batch}"
    for sharing in (*([scale.asked] if scale.asked else ()), *ALWAYS_TOLD):
        yield f"          {sharing.who}: {memory(method, scale, network, sharing)}"
    if isinstance(method.unroll, Replayed) and not method.unroll.compile:
        a_step = partial(_kept, network, scale.facts, batch)
        one = counted_once("memory of a kept student step", scale.network, scale.facts, a_step, batch)
        kept = method.student_steps * one
        yield f"          {size(kept)} more keep all student steps, a quarter less work: method.unroll.memory={kept}"
    yield from notes_of(method, scale.facts.num_train)


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


def memory(method: TrajectorySettings, scale: Scale, network: nn.Module, sharing: Sharing) -> Memory:
    """What a process holds at most in an outer step; its student step is that of a small batch, scaled up."""
    facts = scale.facts
    num_images = scale.images_per_class * facts.num_classes
    labels = facts.num_classes if method.labels.learned else 0
    own = sharing.copies * (scale.learned_numbers / num_images + labels) + scale.seen_numbers / num_images
    batch = ceil(min(num_images, method.batch_size) / sharing.group_size)
    student = Student(network)
    stored = method.student_steps * student.num_parameters * FLOAT // sharing.group_size
    held = int(FLOAT * own * ceil(num_images / sharing.num_ranks))
    in_step = counted_once(
        "memory of a student step", scale.network, facts, lambda: _student_step(student, facts, batch), batch
    )
    return Memory(held, stored, in_step)


def _student_step(student: Student, facts: Facts, batch: int) -> int:
    """Bytes at most in one replayed student step."""

    def peak(count: int) -> int:
        theta = torch.zeros(student.num_parameters)
        images, labels = torch.zeros(count, *facts.image_shape), torch.zeros(count, facts.num_classes)
        _, reverse = student_step(student, False)
        return peak_live_bytes(lambda: reverse(theta, theta, images, labels))

    one, two = peak(1), peak(2)
    return one + (batch - 1) * (two - one)


def _kept(network: nn.Module, facts: Facts, batch: int) -> int:
    """Bytes of one student step that is kept for its way back; counted on few images and scaled up."""
    student = Student(network)

    def held(count: int) -> int:
        images, labels = torch.zeros(count, *facts.image_shape), torch.zeros(count, facts.num_classes)
        return bytes_of_a_step(student, torch.zeros(student.num_parameters), images, labels)

    one, two = held(1), held(2)
    return one + (batch - 1) * (two - one)


def _disk(method: TrajectorySettings, num_parameters: int) -> str:
    """Bytes of the finished store, and what keeping less would take."""
    experts, needed = method.experts, method.epochs_used()

    def store(form: Form) -> int:
        return experts.num_experts * form.bytes_per_expert(experts.num_epochs, needed, num_parameters)

    form = experts.trajectory
    own = store(form)
    text = f"{size(own)} for {experts.num_experts} experts of {num_parameters:,} parameters"
    if isinstance(form, Full):
        window = size(store(replace(form, keep_epochs="window")))
        text += f" ({window} with experts.trajectory.keep_epochs=window)" if window != size(own) else ""
    return text
