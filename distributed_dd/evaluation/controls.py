"""Which real images are controls of a result: as many of each class as its set has, chosen by rules."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from distributed_dd.data import PREPROCESSINGS
from distributed_dd.data.splits import content_sha256
from distributed_dd.errors import ConfigError
from distributed_dd.evaluation.coresets import Coreset, coresets
from distributed_dd.evaluation.settings import EXPERT_RULES, RULES
from distributed_dd.family import identity
from distributed_dd.outer.ports import Cluster, Progress
from distributed_dd.outer.world import World


def view_of(rule: str) -> str:
    """What a rule looks at: ``pixels``, or a view that experts have: ``features``, ``el2n``, ``forgetting``."""
    if rule in RULES:
        return "pixels"
    return "features" if rule.endswith("_features") else rule


def refuse_blind(rules: Sequence[str], views: Sequence[str]) -> None:
    """Refuse rules that look at what nothing beforehand can show.

    Args:
        views: those that what was made beforehand has.

    Raises:
        ConfigError: a rule needs experts, and the method trains none.
    """
    for rule in rules:
        if rule in EXPERT_RULES and view_of(rule) not in views:
            raise ConfigError(
                "evaluate.controls",
                f"{rule!r} needs experts, which this method does not train",
                allowed=", ".join(RULES),
            )


def lack_of_room(world: World, per_class: int) -> str:
    """Why there are no controls of so many images."""
    return f"a class has {int(torch.bincount(world.real.pixels.targets).min())}, the set {per_class}"


def has_room(world: World, per_class: int) -> bool:
    """Whether every class has as many real images."""
    return per_class <= int(torch.bincount(world.real.pixels.targets).min())


def controls_of(world: World, cluster: Cluster, progress: Progress, per_class: int | None = None) -> list[Coreset]:
    """Real images chosen by each rule in ``evaluate.controls``; none where a class has fewer than are asked for.

    Rules that need experts are left out, and said, where those are gone.

    Args:
        per_class: images of every class; by default as many as take the bytes of the set's.
    """
    number, train, shared = per_class or world.stored_per_class, world.real.train, world.shared
    if not has_room(world, number):
        progress.say(f"note: no real images as controls: {lack_of_room(world, number)}")
        return []
    views = ("pixels", *(shared.views if shared is not None else ()))
    rules = [rule for rule in world.evaluate.controls if view_of(rule) in views]
    if blind := [rule for rule in world.evaluate.controls if rule not in rules]:
        progress.say(f"note: {', '.join(blind)} left out: there are no experts to look through")
    # Of the training split itself: what is set aside for validation decides which image an index is.
    stored, preprocessing = world.real.pixels, world.preprocessing
    seen = {
        "train_sha256": content_sha256(stored.images, stored.targets),
        "preprocessing": {"kind": PREPROCESSINGS.kind_of(preprocessing), **identity(preprocessing)},
    }

    def features_of(rule: str) -> tuple[Callable[[], Tensor], dict[str, Any]]:
        if (view := view_of(rule)) == "pixels":
            return lambda: train.images, seen
        return partial(shared.view, view, cluster, progress), {**seen, "seen_by": shared.digest}

    return coresets(rules, features_of, train.targets, number, world.seed, cluster, progress)
