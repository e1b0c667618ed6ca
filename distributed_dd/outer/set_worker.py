"""What every rank of the distillation of a set does, for any method; where there is one, it is the only rank."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from distributed_dd.errors import DivergedError
from distributed_dd.learning.device import device
from distributed_dd.learning.set_forms import one_by_one
from distributed_dd.learning.update_rules import UpdateRule
from distributed_dd.outer.checkpoint import FORM, Checkpoints, Packed, Saved, Shard
from distributed_dd.outer.frozen_rows import hold_still, still_rows
from distributed_dd.outer.learner import Learner
from distributed_dd.outer.method import Found, Seat, Steps
from distributed_dd.outer.ports import Chain, RankTools
from distributed_dd.outer.seen_learner import SeenLearner
from distributed_dd.outer.world import World

STATE, AVERAGE = "state.", "average."


class Stepping(Protocol):
    """The part of a method that a worker needs."""

    @property
    def ema_decay(self) -> float | None: ...

    def optimizers(self) -> Mapping[str, UpdateRule]: ...

    def floors(self) -> Any: ...

    def steps(self, world: World, seat: Seat) -> Steps: ...

    def chain(self, world: World) -> Chain | None: ...


@dataclass(frozen=True)
class SetJob:
    """The distillation of a set as it is told to every rank."""

    method: Stepping
    world: World
    checkpoints: Checkpoints

    @property
    def chain(self) -> Chain | None:
        """Work that is done ahead of the outer steps."""
        return self.method.chain(self.world)

    def worker(self, saved: Saved, tools: RankTools) -> "SetWorker":
        """What makes this rank's outer steps, from a checkpoint on."""
        return SetWorker(self, saved, tools)


class SetWorker:
    """Makes outer steps: differentiate, agree, update.

    Attributes:
        learner: what is stored, updated and saved. seen: the same as the method sees it.
    """

    def __init__(self, job: SetJob, saved: Saved, tools: RankTools) -> None:
        self.job, self.ranks = job, tools.ranks
        method = job.method
        self.learner = tools.learner(saved, method.optimizers())
        form = job.world.form
        self.codec = form.codec(job.world.image_shape, saved.form_tensors())
        self.seen: Learner = self.learner if form.plain else SeenLearner(self.learner, self.codec)
        classes = one_by_one("classes", saved.rows("classes", 0, saved.num_rows), self.codec.pictures)
        self.steps = method.steps(job.world, Seat(tools.ranks, classes, tools.stored))
        kept = [name for name in saved.names() if name.startswith(STATE)]
        self.steps.load({name.removeprefix(STATE): saved.value(name) for name in kept})
        self.still = still_rows(job.world)
        self.average: dict[str, Tensor] | None = None
        if method.ema_decay is not None:
            prefix = AVERAGE if f"{AVERAGE}images" in saved.names() else ""
            self.average = {
                name: saved.part(prefix + name, self.ranks.layout.kept(saved.num_rows)).to(device())
                for name in self.learner.kept()
                if name != "classes"
            }

    def outer_step(self, step: int, prepared: Any = None) -> dict[str, float]:
        """Differentiate, agree, update; what was measured, the same on every rank.

        Raises:
            DivergedError: on all ranks, where a number stopped being finite on any; nothing was updated.
        """
        method = self.job.method
        held = self.seen.read()
        local = self.steps.gradient(step, held, prepared)
        for name, rows in local.renewed.items():
            self.seen.replace(name, rows)
        verdict = self.steps.verdict(self._agreed(step, local))
        norm, floored = 0.0, False
        if verdict.num_counted:
            norm = self._update(step, local, verdict.num_counted, held.first)
            for name, floor in method.floors().items():
                floored = self.learner.lift(name, floor) or floored
            self._update_average()
        more = self.steps.updated(step, self.seen)
        metrics = {**verdict.metrics, **more, "image_gradient_norm": norm}
        return metrics | ({"floored": int(floored)} if method.floors() else {})

    def _agreed(self, step: int, local: Found) -> dict[str, Tensor]:
        """Sums over ranks of what was measured; all ranks see a number that is not finite on one."""
        numbers = (*local.gradients.values(), *local.parts.values())
        bad = not all(bool(torch.isfinite(number).all()) for number in numbers)
        flat = [part.double().reshape(-1).cpu() for part in local.parts.values()]
        sizes = [len(part) for part in flat]
        packed = torch.cat([*flat, torch.tensor([float(bad)], dtype=torch.float64)])
        *sums, num_bad = self.ranks.sum(packed.to(device())).cpu().split([*sizes, 1])
        named = dict(zip(local.parts, sums, strict=True))
        if num_bad > 0:
            listed = ", ".join(
                f"{name} {' '.join(f'{value:g}' for value in values.tolist())}" for name, values in named.items()
            )
            raise DivergedError(
                f"outer step {step}",
                f"a loss or its gradient is not finite ({listed}); the update was not made",
                allowed="finite numbers",
                fix="lower the learning rates in method (method.*_optimizer.learning_rate, "
                f"method.*_learning_rate); the state before this step is in {self.job.checkpoints.folder}",
            )
        return named

    def _update(self, step: int, local: Found, num_counted: float, first: int) -> float:
        """Update with the mean over what counts; the norm of the image gradient. ``first``: row of the gradients."""
        if self.still is not None:
            hold_still(local.gradients, self.still, first)
        if num_counted > 1:
            for gradient in local.gradients.values():
                gradient.div_(num_counted)
        norm = self.seen.step(local.gradients, self.steps.rate_factor(step))
        return self.ranks.sum(norm).sqrt().item()

    @torch.no_grad()
    def _update_average(self) -> None:
        if self.average is not None and self.job.method.ema_decay is not None:
            now = self.learner.kept()
            for name, value in self.average.items():
                value.lerp_(now[name], 1 - self.job.method.ema_decay)

    def save(self, step: int) -> Shard:
        """Write what `packed` gives."""
        return self.job.checkpoints.write(self.packed(step))

    def packed(self, step: int) -> Packed:
        """The rows that this rank keeps, with their momenta and average.

        On the first rank also the state, and what the form chose.
        """
        layout = self.ranks.layout
        tensors = self.learner.kept() | self.learner.slots()
        tensors |= {f"{AVERAGE}{name}": value for name, value in (self.average or {}).items()}
        state = self.steps.state()
        if layout.rank == 0:
            tensors |= {f"{STATE}{name}": value for name, value in state.items()}
            tensors |= {f"{FORM}{name}": value for name, value in self.codec.tensors().items()}
        first, _ = layout.kept(self.learner.num_rows)
        tensors = {name: value.cpu() for name, value in tensors.items()}
        return self.job.checkpoints.pack(step, layout.rank, layout.num_ranks, first, tensors)
