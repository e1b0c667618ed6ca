"""Methods that distil a set: what they must say, and what all of them have unless they say otherwise."""

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from distributed_dd.evaluation.elsewhere import Elsewhere, SetElsewhere
from distributed_dd.evaluation.product import Product, Tensors
from distributed_dd.evaluation.rows import Entry, candidates
from distributed_dd.evaluation.scoring import Candidate
from distributed_dd.evaluation.set_product import SetProduct
from distributed_dd.learning.update_rules import UpdateRule
from distributed_dd.outer.checkpoint import Checkpoints
from distributed_dd.outer.method import Method, Seat, Steps
from distributed_dd.outer.ports import Chain, Job
from distributed_dd.outer.scale import Scale, Work
from distributed_dd.outer.set_worker import SetJob
from distributed_dd.outer.work import FLOAT, evaluation_operations, forward_flops_of, size
from distributed_dd.outer.world import World


class SetMethod(Method):
    """Images with labels are learned, and whatever else `optimizers` names."""

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
            start=partial(self.starting_set, world),
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
    num_bytes = FLOAT * prod(facts.image_shape) * num_images
    lines = [
        f"disk      {size(2 * num_bytes)} for a checkpoint (set and momenta), at most three of which are kept",
        f"memory    {size(3 * num_bytes)} for the set, its momenta and gradients; torch itself",
    ]
    if asked is not None and asked.num_ranks > 1:
        lines.append(f"          {asked.who}: {size(asked.copies * num_bytes / asked.num_ranks)}")
    num_sets += START + len(scale.evaluate.controls)
    evaluate = evaluation_operations(scale, num_images, num_sets, forward)
    return Work(lines, {"distill": scale.num_outer_steps * passes * forward, "evaluate": evaluate})
