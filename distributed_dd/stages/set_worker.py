"""What every rank of the distillation of a set does; where there is one, it is the only rank."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from distributed_dd.distillation.augment import part_of
from distributed_dd.distillation.chance import generator
from distributed_dd.distillation.methods.trajectory_matching import Draw, TrajectoryMatching
from distributed_dd.distillation.networks import Network, initialised
from distributed_dd.distillation.sharded import Exchanged, Ranks
from distributed_dd.distillation.student import Student
from distributed_dd.distillation.unroll import MatchingGradient, Problem, RowGradients, Rows, Stored, Whole
from distributed_dd.errors import DivergedError
from distributed_dd.stages.checkpoint import Checkpoints, Saved, Shard
from distributed_dd.stages.material import device
from distributed_dd.stages.ports import Engine, Engines, Held
from distributed_dd.trajectories.store import TrajectoryStore


@dataclass(frozen=True)
class SetJob:
    """The distillation of a set as it is told to every rank."""

    chain: ClassVar[None] = None

    method: TrajectoryMatching
    seed: int
    num_experts: int
    network: Network
    image_shape: tuple[int, int, int]
    num_classes: int
    store: TrajectoryStore
    checkpoints: Checkpoints

    @cached_property
    def student(self) -> Student:
        """The network as a pure function, on the device."""
        network = initialised(
            self.network, self.image_shape, self.num_classes, generator(self.seed, "layout")
        )
        return Student(network, self.method.precision).to(device(), torch.float32)

    def __reduce__(self) -> tuple:
        # The student is made where it is used.
        return SetJob, tuple(getattr(self, f.name) for f in fields(self))

    def worker(self, saved: Saved, engines: Engines) -> "SetWorker":
        """What makes this rank's outer steps, from a checkpoint on."""
        engine = engines.of_set(saved, self.method.optimizers())
        stored = engines.stored(self.student.num_parameters, self.method.student_steps)
        return SetWorker(self, engine, engines.ranks, stored, saved)


class SetWorker:
    """Makes outer steps on the rows and segments that fall to this rank.

    Args:
        stored: makes the place where an unroll keeps its parameters.
        saved: the checkpoint that ``engine`` was made from.
    """

    def __init__(
        self, job: SetJob, engine: Engine, ranks: Ranks, stored: Callable[[], Stored], saved: Saved
    ) -> None:
        self.job, self.engine, self.ranks, self.stored = job, engine, ranks, stored
        self.average: dict[str, Tensor] | None = None
        if job.method.ema_decay is not None:
            prefix = "average." if "average.images" in saved.names() else ""
            span = ranks.layout.kept(saved.num_rows)
            rows = {name: saved.rows(prefix + name, *span) for name in ("images", "labels")}
            rows["learning_rate"] = saved.value(f"{prefix}learning_rate")
            self.average = {name: value.to(device()) for name, value in rows.items()}

    def outer_step(self, step: int, prepared: None = None) -> dict[str, float]:
        """Draw, differentiate, agree, update; what it measured, the same on every rank.

        Raises:
            DivergedError: on all ranks, where a number stopped being finite on any; nothing was updated.
        """
        method, layout = self.job.method, self.ranks.layout
        held = self.engine.read()
        gradients = RowGradients(held.images, held.labels)
        rate = torch.zeros_like(held.learning_rate)
        losses = torch.zeros(method.segments_per_outer_step, dtype=torch.float64)
        accepted, epochs = losses.clone(), losses.clone()
        for number in layout.rounds(len(losses)):
            draws = [self._draw(step, layout.segment(number, group)) for group in range(layout.num_groups)]
            segment, draw = layout.segment(number, layout.group), draws[layout.group]
            found = self._match(held, draws, gradients)
            rate += found.learning_rate
            if layout.place == 0:
                losses[segment], epochs[segment] = found.loss.item(), draw.start_epoch
                accepted[segment] = method.accepts(found.loss.item())
        part = MatchingGradient(losses, gradients.images, gradients.labels, rate)
        bad = torch.tensor([0.0 if part.is_finite() else 1.0], dtype=torch.float64)
        losses, accepted, epochs, bad = self.ranks.sum(
            torch.cat([losses, accepted, epochs, bad]).to(device())
        ).cpu().split([len(losses)] * 3 + [1])  # fmt: skip
        if bad > 0:
            self._diverged(step, losses, epochs)
        count, norm, floored = accepted.sum().item(), 0.0, False
        if count:
            norm = self._update(part, count)
            floored = self.engine.keep_rate(method.student_learning_rate_min)
            self._update_average()
        return {
            "matching_loss": losses.mean().item(),
            "student_learning_rate": self.engine.rate(),
            "start_epoch": epochs.mean().item(),
            "accepted": int(count),
            "image_gradient_norm": norm,
            "floored": int(floored),
        }

    def _draw(self, step: int, segment: int) -> Draw:
        job = self.job
        return job.method.draw(step, job.seed, job.num_experts, self.engine.num_rows, segment)

    def _match(self, held: Held, draws: list[Draw], gradients: RowGradients) -> MatchingGradient:
        """The loss of this group's segment; its gradients, where it is accepted, are added."""
        method, layout = self.job.method, self.ranks.layout
        draw = draws[layout.group]
        trajectory = self.job.store.open(draw.expert)
        start = trajectory.checkpoint(draw.start_epoch).to(device())
        target = trajectory.checkpoint(draw.start_epoch + method.expert_epochs).to(device())
        held = self._renewed(held, target)
        parts = [layout.part(len(batch)) for batch in draw.batches]
        augment = [part_of(drawn, *part) for drawn, part in zip(draw.augment, parts, strict=True)]
        alone = layout.group_size == 1
        shares = [(b - a) / len(batch) for (a, b), batch in zip(parts, draw.batches, strict=True)]
        rows = self._rows(held, draws, gradients)
        problem = Problem(
            self.job.student, start, target, rows, held.learning_rate, augment, None if alone else shares,
            self.ranks.sum_in_group, self.stored, self._weigh,
            in_step=layout.num_groups > 1 and isinstance(rows, Exchanged),
        )  # fmt: skip
        return method.unroll(problem)

    def _rows(self, held: Held, draws: list[Draw], gradients: RowGradients) -> Rows:
        layout = self.ranks.layout

        def own(rank: int, step: int) -> Tensor:
            there = layout.at(rank)
            first, last = there.part(len(draws[there.group].batches[step]))
            return draws[there.group].batches[step][first:last]

        steps = range(len(draws[0].batches))
        if len(held.images) == self.engine.num_rows:
            batches = [own(layout.rank, step).to(held.images.device) for step in steps]
            return Whole(held.images, held.labels, batches, gradients)
        everyone = [[own(rank, step) for rank in range(layout.num_ranks)] for step in steps]
        return Exchanged(held.images, held.labels, self.engine.num_rows, everyone, self.ranks, gradients)

    def _weigh(self, loss: Tensor) -> float:
        """The gate, as the group's first rank sees it: ranks that differed would wait for each other."""
        return float(self.job.method.accepts(self.ranks.first_of_group(loss).item()))

    def _renewed(self, held: Held, target: Tensor) -> Held:
        with torch.no_grad():
            labels = self.job.method.labels.renewed(lambda: self.job.student.logits(target, held.images))
        if labels is None:
            return held
        self.engine.renew_labels(labels)
        return Held(held.first, held.images, labels, held.learning_rate)

    def _update(self, part: MatchingGradient, num_accepted: float) -> float:
        """Update with the mean over the accepted segments; the norm of the image gradient."""
        if num_accepted > 1:
            for tensor in (part.images, part.labels, part.learning_rate):
                tensor.div_(num_accepted)
        return self.ranks.sum(self.engine.step(part)).sqrt().item()

    @torch.no_grad()
    def _update_average(self) -> None:
        if self.average is not None and self.job.method.ema_decay is not None:
            now = self.engine.kept()
            for name, value in self.average.items():
                value.lerp_(now[name], 1 - self.job.method.ema_decay)

    def _diverged(self, step: int, losses: Tensor, epochs: Tensor) -> None:
        told = ", ".join(f"{loss:g} from epoch {epoch:g}" for loss, epoch in zip(losses, epochs, strict=True))
        raise DivergedError(
            f"outer step {step}",
            f"a matching loss or its gradient is not finite (loss {told}); the update was not made",
            allowed="finite numbers",
            fix="lower method.*_optimizer.learning_rate or method.student_learning_rate; the state before "
            f"this step is in {self.job.checkpoints.folder}",
        )

    def save(self, step: int) -> Shard:
        """Write the rows that this rank keeps, with their momenta and average."""
        layout = self.ranks.layout
        tensors = self.engine.kept()
        tensors |= {f"momentum.{name}": value for name, value in self.engine.momenta().items()}
        tensors |= {f"average.{name}": value for name, value in (self.average or {}).items()}
        first, _ = layout.kept(self.engine.num_rows)
        tensors = {name: value.cpu() for name, value in tensors.items()}
        return self.job.checkpoints.write_shard(step, layout.rank, layout.num_ranks, first, tensors)
