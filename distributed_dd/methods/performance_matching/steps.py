"""The outer steps of performance matching: students and their batches divided over ranks, rows wherever they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distributed_dd.learning.augment import Drawn, part_of
from distributed_dd.learning.batches import endless_batch
from distributed_dd.learning.chance import generator
from distributed_dd.learning.flat import flatten
from distributed_dd.learning.networks import initialised
from distributed_dd.learning.schedules import Cosine
from distributed_dd.learning.schedules import Moment as Place
from distributed_dd.methods.performance_matching.real_loss import RealLoss
from distributed_dd.methods.performance_matching.settings import PerformanceSettings
from distributed_dd.methods.performance_matching.windows import Span
from distributed_dd.outer.by_class import resident
from distributed_dd.outer.learner import Held, Learner
from distributed_dd.outer.method import Found, Seat, Steps, Tensors, Verdict
from distributed_dd.outer.student import student_of
from distributed_dd.outer.world import World
from distributed_dd.unroll import At, Divided, Exchanged, Moment, Problem, RowGradients, UnrolledGradient, span


@dataclass(frozen=True)
class Draw:
    """All chance of one student of an outer step, but for where it begins.

    Attributes:
        batches, augment: of every student step. real: images of the end loss, by index. augment_real: theirs.
    """

    batches: tuple[Tensor, ...]
    augment: tuple[Drawn, ...]
    real: Tensor
    augment_real: Drawn


class PerformanceSteps(Steps):
    """Gradients of the students that fall to this rank's group, of the batches' parts that fall to this rank."""

    def __init__(self, method: PerformanceSettings, world: World, seat: Seat) -> None:
        self.method, self.world, self.seat, self.ranks = method, world, seat, seat.ranks
        self.student = student_of(method, world)
        self.stored = seat.stored(self.student.num_parameters * method.rule.num_kept, method.student_steps)
        self.students = method.source.students(self._untrained, method.rule.num_slots, world.seed)
        self.images = resident(world.real.train.images, seat)
        self._ends: list[Moment | None] = []
        self._num_steps = 0

    def _untrained(self, *key: str | int) -> Tensor:
        world = self.world
        layers = initialised(world.network, world.image_shape, world.num_classes, generator(world.seed, *key))
        return flatten(layers).to(self.images.device)

    def draw(self, step: int, number: int) -> tuple[Span, Draw]:
        """Everything random about student ``number`` of outer step ``step``; all students make equally many steps."""
        method, seed = self.method, self.world.seed
        made = method.window.draw(method.student_steps, generator(seed, "outer step", step, "window"))
        rng = generator(seed, "outer step", step, "student", number)
        batches = method.batches.draw(self.seat.classes, made.num_steps, rng)
        augment = tuple(method.augment.draw(rng, len(batch)) for batch in batches)
        count = step * method.students_per_outer_step + number
        real = endless_batch(len(self.images), method.batch_size, count, seed, "real images")
        return made, Draw(batches, augment, real, method.augment_real.draw(rng, len(real)))

    def gradient(self, step: int, held: Held, prepared: Any = None) -> Found:
        """The gradients of all accepted students of an outer step, added up."""
        method, layout, count = self.method, self.ranks.layout, self.method.students_per_outer_step
        gradients = RowGradients(held.images, held.labels)
        rates = method.rates.read(held.tensors, method.student_learning_rate, method.student_steps)
        slope = torch.zeros_like(rates)
        losses = torch.zeros(count, dtype=torch.float64)
        accepted = losses.clone()
        self._ends = [None] * count
        for number in layout.rounds(count):
            drawn = [self.draw(step, layout.segment(number, group)) for group in range(layout.num_groups)]
            student = layout.segment(number, layout.group)
            trained = self._train(step, student, held, rates, drawn, gradients)
            self._ends[student] = trained.end
            if rates.ndim:
                slope[: len(trained.learning_rate)] += trained.learning_rate
            else:
                slope += trained.learning_rate
            if layout.place == 0:
                losses[student] = trained.loss.item()
                accepted[student] = method.accepts(trained.loss.item())
        everything = {"images": gradients.images, "labels": gradients.labels}
        everything |= method.rates.slopes(held.tensors, slope)
        learned = {name: everything[name] for name in method.optimizers()}
        return Found(learned, {"loss": losses, "accepted": accepted})

    def _train(
        self,
        step: int,
        student: int,
        held: Held,
        rates: Tensor,
        drawn: list[tuple[Span, Draw]],
        gradients: RowGradients,
    ) -> UnrolledGradient:
        """This group's student, back and forth; its gradients, where it is accepted, are added."""
        method, layout = self.method, self.ranks.layout
        (num_steps, first_back), draw = drawn[layout.group]
        self._num_steps = num_steps
        begins = self.students.begin(step, student, method.students_per_outer_step).like(held.images)
        divided = Divided(self.ranks, [each.batches for _, each in drawn], len(self.seat.classes))
        rows = divided.rows(held.images, held.labels, gradients)
        problem = Problem(
            student=self.student.to(held.images.device, held.images.dtype),
            theta_start_P=begins.moment.theta_P,
            start_slots=begins.moment.slots or None,
            updates_before=begins.updates,
            ends=At({num_steps: self._real_loss(draw, held.images)}),
            rows=rows,
            learning_rate=rates[:num_steps] if rates.ndim else rates,
            rule=method.rule,
            first_back=first_back,
            augment=divided.augment(draw.augment),
            shares=divided.shares,
            reduce=self.ranks.sum_in_group,
            stored=self.stored,
            weigh=method.weigh(self.ranks),
            in_step=layout.num_groups > 1 and isinstance(rows, Exchanged),
        )
        return method.unroll(problem)

    def _real_loss(self, draw: Draw, like: Tensor) -> RealLoss:
        """The end loss on this rank's real images."""
        layout, count = self.ranks.layout, len(draw.real)
        a, b = span(count, layout.group_size, layout.place)
        index, augment = draw.real[a:b], part_of(draw.augment_real, a, b)
        return RealLoss(
            student=self.student,
            images=augment(self.images[index.to(self.images.device)].to(like.device, like.dtype)),
            classes=self.world.real.train.targets[index].to(like.device),
            share=None if layout.group_size == 1 else (b - a) / count,
            rows_at_once=self.method.rows_at_once,
        )

    def verdict(self, sums: Mapping[str, Tensor]) -> Verdict:
        """The update counts the accepted students."""
        count = sums["accepted"].sum().item()
        return Verdict({"real_loss": sums["loss"].mean().item(), "accepted": int(count)}, count)

    def rate_factor(self, step: int) -> float:
        """Half a cosine from 1 to the final rate."""
        num_steps = self.world.num_outer_steps
        return Cosine(final=self.method.final_rate).factor(
            Place(epoch=step, batch=0, num_batches=1, num_epochs=num_steps)
        )

    def updated(self, step: int, learner: Learner) -> dict[str, float]:
        """Students of a pool go on from where they are."""
        return self.students.end(step, self._ends, self._num_steps, self.ranks)

    def state(self) -> Tensors:
        """A pool."""
        return self.students.state()

    def load(self, state: Tensors) -> None:
        """Take it back."""
        self.students.load(state)
