"""A shipped configuration, changed to suit other data."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log2
from typing import Any

from distributed_dd.data import DATA_SETS, DataSource, Facts
from distributed_dd.data.glance import Glance, glance_at
from distributed_dd.drafts.origin import origin_of
from distributed_dd.errors import ConfigError
from distributed_dd.experiment import experiment_of
from distributed_dd.family import build_member
from distributed_dd.learning.networks import NETWORKS
from distributed_dd.methods import METHODS
from distributed_dd.nested import laid_over

WITHOUT_MIRRORING = ["color", "crop", "cutout", "scale", "rotate"]
LARGEST_AS_THEY_ARE = 64
SIDES = (8, 16, 32, 64)
WIDTH = 32
"""Channels, of two cores."""
ENLARGED = 1.25
"""How much the middle picture may grow, where the next smaller side would lose more."""
FEW_TRAINING_IMAGES, MOST_PASSES = 5_000, 100_000
"""Of two cores: training images, and images that the full-data row's networks see in all."""
ENOUGH_TO_WHITEN, LARGEST_TO_WHITEN = 1_000, 64 * 64 * 3
USUAL_IMAGES_PER_CLASS, ENOUGH_FOR_IT = 10, 50
AUGMENTED = ("kind", "operations")


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A first configuration: its values as they are written, where they come from, what was seen of the data."""

    values: dict[str, Any]
    origin: str
    glance: Glance
    side: int | None
    """Of the square that pictures are resized to; None: they stay as they are."""


def draft(data: Mapping[str, Any], method: str | None, images_per_class: int | None, gpu: bool) -> Draft:
    """A configuration that builds, for the data that ``data`` describes.

    Args:
        data: the group ``data`` as people write it: a kind, and the path where it needs one.
        gpu: whether a GPU will compute; without one everything is sized for two cores.

    Raises:
        ConfigError: unknown words, or more images per class than there are. MissingInputError, IntegrityError: the
            data are not there, or not what they should be.
    """
    source: DataSource = build_member(DATA_SETS, data, "data")
    glance = glance_at(source)
    per_class = _images_per_class(images_per_class, glance)
    side = _side(glance, gpu) if glance.sizable else None
    shape = (side, side) if side else glance.largest
    facts = Facts((glance.channels, *shape), glance.num_classes, glance.num_train)
    origin = origin_of(method, per_class, min(shape), glance.channels, gpu)
    values = _fitted({**origin.values, "images_per_class": per_class}, data, glance, facts, gpu, side)
    if num_train := values["data"].get("num_train"):
        facts = Facts(facts.image_shape, facts.num_classes, num_train)
    values = METHODS.members[values["method"]["kind"]].begun_from(values, facts)
    experiment_of(values)  # what is written can be read
    return Draft(values=values, origin=origin.name, glance=glance, side=side)


def _images_per_class(asked: int | None, glance: Glance) -> int:
    fewest = glance.fewest_for_training
    if asked is None:
        return USUAL_IMAGES_PER_CLASS if fewest >= ENOUGH_FOR_IT else 1
    if not 1 <= asked <= fewest:
        problem = f"got {asked}; the smallest class of {glance.name} has some {fewest} training images"
        raise ConfigError("--ipc", problem, allowed=f"1 to {max(1, fewest)}")
    return asked


def _side(glance: Glance, gpu: bool) -> int | None:
    """The square that pictures of a folder are resized to; None: they are small squares of one size."""
    height, width = glance.largest
    if glance.smallest == glance.largest and height == width and SIDES[0] <= height <= LARGEST_AS_THEY_ARE:
        return None
    most = SIDES[-1] if gpu else SIDES[-2]
    return max((side for side in SIDES if side <= min(most, ENLARGED * glance.shorter_side)), default=SIDES[0])


def _fitted(
    values: dict[str, Any], data: Mapping[str, Any], glance: Glance, facts: Facts, gpu: bool, side: int | None
) -> dict[str, Any]:
    """What does not depend on the method."""
    group = dict(data)
    if side:
        group["size"] = side
    if glance.sizable and glance.channels == 1:
        group["grey"] = True
    if not gpu and facts.num_train > FEW_TRAINING_IMAGES:
        group["num_train"] = FEW_TRAINING_IMAGES
    num_train = group.get("num_train", facts.num_train)
    values = {**values, "data": group, "network": _network(values.get("network", {}), facts, gpu)}
    numbers = facts.image_shape[0] * facts.image_shape[1] * facts.image_shape[2]
    if num_train < ENOUGH_TO_WHITEN or numbers > LARGEST_TO_WHITEN:
        values["preprocessing"] = {"kind": "standardise"}
    values = _augmented(values, mirrored=facts.image_shape[0] == 3)
    evaluate, passes = values["evaluate"], MOST_PASSES // max(1, num_train)
    if not gpu:
        full = min(evaluate.get("num_epochs_full_data", 100), max(10, passes))
        values["evaluate"] = laid_over(evaluate, {"num_epochs_full_data": full})
    return values


def _network(network: Mapping[str, Any], facts: Facts, gpu: bool) -> dict[str, Any]:
    """As deep as the images can be halved, down to some four pixels; digits of 8 x 8 to two."""
    side = min(facts.image_shape[1:])
    depth = max(2 if side >= SIDES[0] else 1, round(log2(side)) - 2)
    known = {"kind": "convnet", **network}
    fitted = {"depth": depth} if gpu else {"depth": depth, "width": WIDTH}
    fields = NETWORKS.members[known["kind"]].__dataclass_fields__  # others, such as lenet, are as deep as they are
    return {**known, **{name: value for name, value in fitted.items() if name in fields}}


def _augmented(values: Any, mirrored: bool) -> Any:
    """Every list of operations of an augmentation with mirroring, or without: digits and letters have two sides."""
    if isinstance(values, list):
        return [_augmented(value, mirrored) for value in values]
    if not isinstance(values, dict):
        return values
    changed = {key: _augmented(value, mirrored) for key, value in values.items()}
    if changed.get("kind") == "dsa":
        operations = changed.get("operations", [*WITHOUT_MIRRORING])
        rest = [name for name in operations if name != "flip"]
        changed["operations"] = [*rest, "flip"] if mirrored else rest
    return changed
