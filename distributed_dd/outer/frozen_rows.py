"""Frozen rows in one experiment: refused where they cannot be, laid into the starting set, kept as they are."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from distributed_dd.family import require
from distributed_dd.learning.chance import generator
from distributed_dd.learning.update_rules import is_by_row
from distributed_dd.outer.frozen import CHOICES, first_of_class
from distributed_dd.outer.world import World


def check_frozen(world: World) -> None:
    """Refuse, before anything starts, what cannot be frozen.

    Raises:
        ConfigError: a share that freezes nothing or everything, images that nothing ranks, a window too narrow.
    """
    frozen, asked = world.frozen, world.images_per_class
    if not frozen.active:
        return
    number, where = frozen.per_class(asked), "set.frozen.share"
    share = f"{frozen.share:g} of {asked} images of each class"
    require(number > 0 or not frozen.share, where, f"{share} is none", f"{0.5 / asked:g} or more, or 0")
    require(number < asked, where, f"{share} is all of them: nothing is left to learn", f"below {1 - 0.5 / asked:g}")
    require(
        not frozen.images.ranked or getattr(world.shared, "ranks_images", False),
        "set.frozen.images",
        "are chosen by difficulty, and this method has no experts that could rank them",
        "kind: random",
        "choose at random, or take a method with experts",
    )
    taken, counts = frozen.taken(asked), torch.bincount(world.real.pixels.targets, minlength=world.num_classes)
    available = frozen.images.available(int(counts.min()))
    require(
        taken <= available,
        "set.frozen.images",
        f"{taken} real images of each class are to be taken, and of the smallest class, with {int(counts.min())} "
        f"images, {available} may be",
        "a wider window or fewer images",
    )


def chosen_images(world: World) -> Tensor:
    """Numbers (m,) of the chosen real images among the training images, class by class; those of frozen rows first.

    With a choice by difficulty the prelude, made, is asked.
    """
    frozen, targets = world.frozen, world.real.pixels.targets
    number = frozen.taken(world.images_per_class)
    hardness = world.shared.hardness() if frozen.images.ranked else None
    rng, parts = generator(world.seed, "frozen rows"), []
    for label in range(world.num_classes):
        own = (targets == label).nonzero().flatten()
        if hardness is not None:
            own = own[hardness[own].argsort(stable=True)]
        parts.append(own[frozen.images.places(len(own), number, rng)])
    return torch.cat(parts)


def frozen_images(world: World) -> Tensor:
    """Numbers (classes, k) of the real images in the frozen rows of each class."""
    chosen = chosen_images(world).reshape(world.num_classes, -1)
    return chosen[:, : world.frozen.per_class(world.images_per_class)]


def with_real_rows(
    start: Mapping[str, Tensor], world: World, labels: Tensor, targets: Tensor | None
) -> dict[str, Tensor]:
    """A starting set whose first rows of each class are the chosen real images.

    Args:
        labels: logits (n, K) of all training images. targets: of a regression (n, K), where the set learns some.

    Raises:
        ValueError: the set does not lie class by class.
    """
    train, index = world.real.train, chosen_images(world)
    rows = first_of_class(world.frozen.taken(world.images_per_class), world.images_per_class, world.num_classes)
    if not torch.equal(start["classes"][rows], train.targets[index]):
        raise ValueError(f"rows do not lie class by class: {start['classes'].tolist()}")
    sources = {"images": train.images, "labels": labels, "targets": targets}
    laid = dict(start)
    for name, source in sources.items():
        if name in start and source is not None:
            laid[name] = start[name].clone()
            laid[name][rows] = source[index].to(start[name])
    return laid


def still_rows(world: World) -> Tensor | None:
    """Which rows (n,) never change; None where all do."""
    number = world.frozen.per_class(world.images_per_class)
    return first_of_class(number, world.images_per_class, world.num_classes) if number else None


def hold_still(gradients: Mapping[str, Tensor], still: Tensor, first: int) -> None:
    """Make the gradients of frozen rows 0, in place: no update rule moves what never had a gradient.

    Args:
        gradients: by name; those kept row by row are of the rows from number ``first`` on. still: of all rows.
    """
    for name, gradient in gradients.items():
        if is_by_row(name):
            gradient[still[first : first + len(gradient)].to(gradient.device)] = 0


def described(world: World) -> dict[str, Any]:
    """What manifest and report say of frozen rows; nothing where there are none."""
    frozen, number = world.frozen, world.frozen.per_class(world.images_per_class)
    if not number:
        return {}
    return {
        "frozen": {
            "per_class": number,
            "chosen": CHOICES.kind_of(frozen.images),
            "rows": "the first of each class",
            "training_images": frozen_images(world).tolist(),
        }
    }


def in_words(world: World) -> list[str]:
    """The same for people, in a line."""
    number, asked = world.frozen.per_class(world.images_per_class), world.images_per_class
    if not number:
        return []
    return [f"Frozen: {number} of the {asked} images of each class are real, and were not learned."]
