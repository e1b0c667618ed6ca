"""The outer steps of trajectory matching: segments and student batches divided over ranks, rows wherever they are."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from distributed_dd.learning.device import device
from distributed_dd.learning.flat import Student
from distributed_dd.methods.trajectory_matching.draws import Draw
from distributed_dd.methods.trajectory_matching.settings import TrajectorySettings
from distributed_dd.outer.learner import Held, Learner
from distributed_dd.outer.method import Found, Seat, Steps, Verdict
from distributed_dd.outer.world import World
from distributed_dd.unroll import Divided, Exchanged, Problem, RowGradients, UnrolledGradient

LEARNING_RATE = "learning_rate"


class TrajectorySteps(Steps):
    """Gradients of the segments that fall to this rank's group, of the batches' parts that fall to this rank."""

    def __init__(self, method: TrajectorySettings, world: World, seat: Seat, student: Student) -> None:
        self.method, self.world, self.ranks, self.student = method, world, seat.ranks, student
        self.num_rows = len(seat.classes)
        self.stored = seat.stored(student.num_parameters, method.student_steps)

    def gradient(self, step: int, held: Held, prepared: Any = None) -> Found:
        """The gradients of all accepted segments of an outer step, added up."""
        method, layout = self.method, self.ranks.layout
        gradients = RowGradients(held.images, held.labels)
        rate = torch.zeros_like(held.learning_rate)
        losses = torch.zeros(method.segments_per_outer_step, dtype=torch.float64)
        accepted, epochs = losses.clone(), losses.clone()
        renewed: Mapping[str, Tensor] = {}
        for number in layout.rounds(len(losses)):
            draws = [self._draw(step, layout.segment(number, group)) for group in range(layout.num_groups)]
            segment, draw = layout.segment(number, layout.group), draws[layout.group]
            matched, renewed = self._match(held, draws, gradients)
            rate += matched.learning_rate
            if layout.place == 0:
                losses[segment], epochs[segment] = matched.loss.item(), draw.start_epoch
                accepted[segment] = method.accepts(matched.loss.item())
        everything = {"images": gradients.images, "labels": gradients.labels, LEARNING_RATE: rate}
        learned = {name: everything[name] for name in method.optimizers()}
        return Found(learned, {"loss": losses, "accepted": accepted, "start_epoch": epochs}, renewed)

    def _draw(self, step: int, segment: int) -> Draw:
        world = self.world
        return self.method.draw(step, world.seed, self.method.experts.num_experts, self.num_rows, segment)

    def _match(
        self, held: Held, draws: list[Draw], gradients: RowGradients
    ) -> tuple[UnrolledGradient, Mapping[str, Tensor]]:
        """The loss of this group's segment; its gradients, where it is accepted, are added. Renewed labels."""
        method, layout = self.method, self.ranks.layout
        draw = draws[layout.group]
        trajectory = self.world.shared.open(draw.expert)
        start = trajectory.checkpoint(draw.start_epoch).to(device())
        target = trajectory.checkpoint(draw.start_epoch + method.expert_epochs).to(device())
        renewed = self._renewed(held, target)
        labels = renewed.get("labels", held.labels)
        divided = Divided(self.ranks, [each.batches for each in draws], self.num_rows)
        rows = divided.rows(held.images, labels, gradients)
        problem = Problem(
            student=self.student,
            theta_start_P=start,
            ends=method.compared.ends(
                method.counted.loss(start, target), target, method.student_steps, self.ranks.first_of_group
            ),
            rows=rows,
            learning_rate=held.learning_rate,
            augment=divided.augment(draw.augment),
            shares=divided.shares,
            reduce=self.ranks.sum_in_group,
            stored=self.stored,
            weigh=method.weigh(self.ranks),
            in_step=layout.num_groups > 1 and isinstance(rows, Exchanged),
        )
        return method.unroll(problem), renewed

    @torch.no_grad()
    def _renewed(self, held: Held, target: Tensor) -> dict[str, Tensor]:
        labels = self.method.labels.renewed(lambda: self.student.logits(target, held.images))
        return {} if labels is None else {"labels": labels}

    def verdict(self, sums: Mapping[str, Tensor]) -> Verdict:
        """The update counts the accepted segments."""
        count = sums["accepted"].sum().item()
        metrics = {
            "matching_loss": sums["loss"].mean().item(),
            "start_epoch": sums["start_epoch"].mean().item(),
            "accepted": int(count),
        }
        return Verdict(metrics, count)

    def updated(self, step: int, learner: Learner) -> dict[str, float]:
        """The learned rate."""
        return {"student_learning_rate": learner.value(LEARNING_RATE)}
