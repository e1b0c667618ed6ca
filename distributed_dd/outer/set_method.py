"""Methods that distil a set: what they must say, and what all of them have unless they say otherwise."""

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor

from distributed_dd.evaluation.elsewhere import Elsewhere, SetElsewhere
from distributed_dd.evaluation.product import Product, Tensors
from distributed_dd.evaluation.rows import Entry, candidates
from distributed_dd.evaluation.scoring import Candidate
from distributed_dd.evaluation.set_product import SetProduct
from distributed_dd.learning.classes import hard_logits
from distributed_dd.learning.set_forms import seen, stored
from distributed_dd.learning.update_rules import UpdateRule
from distributed_dd.outer.checkpoint import Checkpoints
from distributed_dd.outer.frozen_rows import with_real_rows
from distributed_dd.outer.look import Look
from distributed_dd.outer.method import Method, Seat, Steps
from distributed_dd.outer.ports import Chain, Job
from distributed_dd.outer.scale import Scale, Work
from distributed_dd.outer.set_losses import SetLosses
from distributed_dd.outer.set_worker import SetJob
from distributed_dd.outer.work import FLOAT, evaluation_operations, forward_flops_of, size
from distributed_dd.outer.world import World


class SetMethod(Method):
    """Images with labels are learned, and whatever else `optimizers` names."""

    learns_a_set: ClassVar[bool] = True
    ema_decay: float | None = None
    """The set is averaged over outer steps with this decay, and the average is what counts; None: it is not."""

    @abstractmethod
    def optimizers(self) -> Mapping[str, UpdateRule]:
        """How each learned tensor is updated: ``images`` first, then ``labels``, ``learning_rate``, .."""

    @abstractmethod
    def steps(self, world: World, seat: Seat) -> Steps:
        """What makes the outer steps of one rank; ``world`` is what ranks are told."""

    def floors(self) -> Mapping[str, float]:
        """Learned numbers that are lifted to a floor after each update."""
        return {}

    def chain(self, world: World) -> Chain | None:
        """What outer steps need and others make ahead of them."""
        return None

    @abstractmethod
    def starting_set(self, world: World) -> Tensors:
        """The set before the first outer step, class by class.

        ``images`` (n, C, H, W) as networks see them, ``labels`` (n, K) logits, ``classes`` (n,), and what
        else is learned (`outer.starting` makes the usual ones).
        """

    def begun(self, world: World) -> Tensors:
        """`starting_set`, with the real images that `World.frozen` chooses in their rows."""
        start = self.starting_set(world)
        if not world.frozen.active:
            return start
        return with_real_rows(start, world, self.training_labels(world), self.training_targets(world))

    def training_labels(self, world: World) -> Tensor:
        """Label logits (n, K) of all training images, as the starting set labels its own."""
        return hard_logits(world.real.train.targets, world.num_classes)

    def training_targets(self, world: World) -> Tensor | None:
        """Targets (n, K) of all training images, as the starting set's; None where the set learns none."""
        return None

    def turn(self, world: World) -> int:
        """Outer steps that build on each other: a process without state can begin at any multiple of it."""
        return 1

    def measuring(self) -> Self:
        """This method with the same losses, and without work that only an update needs."""
        return self

    def look(self, world: World) -> Look | None:
        """Its own outer steps, which change nothing; None where they need work that others make ahead of them."""
        if self.chain(world) is not None:
            return None
        return Look(
            start=_as_seen(self.begun(world), world),
            labels=self.training_labels(world),
            targets=self.training_targets(world),
            losses=SetLosses(self.measuring(), world.for_ranks(self.carries), next(iter(self.words.losses))),
            turn=self.turn(world),
        )

    def rows(self, entry: Entry) -> list[Candidate]:
        """The set and its controls."""
        return candidates(entry)

    def ready_rows(self, entry: Entry) -> list[dict[str, Any]]:
        """Rows that need no fresh networks, scored."""
        return []

    def product(self, world: World, folder: Path) -> Product:
        """A set in ``distilled/``."""
        return SetProduct(
            world=world,
            folder=folder / "distilled",
            start=partial(self.begun, world),
            averaged=self.ema_decay is not None,
            rows_of=self.rows,
            ready_rows_of=self.ready_rows,
        )

    def elsewhere(self, folder: Path) -> Elsewhere:
        """The set with the rows of this method."""
        return SetElsewhere(self.rows)

    def job(self, world: World, checkpoints: Checkpoints) -> Job:
        """One worker serves every method of sets."""
        return SetJob(self, world.for_ranks(self.carries), checkpoints)


def _as_seen(start: Tensors, world: World) -> Tensors:
    """What outer steps see of a start that is stored in the form of the set."""
    if world.form.plain:
        return start
    codec = world.form.fitted(world.image_shape, lambda: world.real.train.images)
    return seen(stored(start, codec), codec)


START = 1
"""The starting set is a control."""


def work_of_a_set(scale: Scale, passes: float, num_sets: int = 3) -> Work:
    """What a distillation with nothing made beforehand takes.

    Args:
        passes: forward passes of one image that an outer step is worth.
        num_sets: sets that the report's networks train on, chosen images, the start and the full data aside.
    """
    facts, asked = scale.facts, scale.asked
    forward = forward_flops_of(scale.network, facts)
    num_images = scale.images_per_class * facts.num_classes
    num_bytes, seen = FLOAT * scale.learned_numbers, FLOAT * scale.seen_numbers
    lines = [
        f"disk      {size(2 * num_bytes)} for a checkpoint (set and momenta), at most three of which are kept",
        f"memory    {size(3 * num_bytes + seen)} for the set, its momenta and gradients; torch itself",
    ]
    if asked is not None and asked.num_ranks > 1:
        lines.append(f"          {asked.who}: {size((asked.copies * num_bytes + seen) / asked.num_ranks)}")
    num_sets += START + len(scale.evaluate.controls)
    evaluate = evaluation_operations(scale, num_images, num_sets, forward)
    return Work(lines, {"distill": scale.num_outer_steps * passes * forward, "evaluate": evaluate})
