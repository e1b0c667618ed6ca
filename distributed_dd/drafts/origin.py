"""The shipped configuration that a first one starts from."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import log
from typing import Any

from distributed_dd import config, presets
from distributed_dd.errors import ConfigError
from distributed_dd.family import did_you_mean
from distributed_dd.methods import FIRST_CHOICE, METHODS

SMALL = "digits"
"""Its configurations are sized for two cores, and there is one of every kind of method."""
SMALL_SIDE = 16
FAR = log(5)
"""Settings for so many times more or fewer images per class are taken only where there are no nearer ones."""
_NAME = re.compile(r"(?P<folder>[^/]+)/(?P<method>.+)_ipc(?P<size>\d+)$")


@dataclass(frozen=True)
class Origin:
    """A shipped configuration: its name, and its values as they are written there."""

    name: str
    values: dict[str, Any]


def origin_of(method: str | None, images_per_class: int, side: int, channels: int, gpu: bool) -> Origin:
    """The nearest configuration of a method, by size of images, by what computes, then by images per class.

    Args:
        method: a kind, or a method's name as in names of configurations; None: the first choice.

    Raises:
        ConfigError: there is no such method.
    """
    name = _name_of(method or FIRST_CHOICE)
    candidates = []
    for rank, folder in enumerate(_folders(side, channels, gpu)):
        for size in (size for known, size in _shipped(folder) if known == name):
            apart = abs(log(size / images_per_class))
            candidates.append(((apart > FAR, rank, apart, size), f"{folder}/{name}_ipc{size}"))
    for _, preset in sorted(candidates):
        values = _values(preset)
        if gpu or preset.startswith(f"{SMALL}/") or values["data"].get("num_train"):
            return Origin(preset, values)
    raise AssertionError(f"no configuration of {name} in {SMALL}")


def _folders(side: int, channels: int, gpu: bool) -> Sequence[str]:
    """Folders of configurations, those for the most similar images first."""
    if side <= SMALL_SIDE:
        return (SMALL,)
    if channels == 1:
        return ("mnist", SMALL)
    return ("cifar10", SMALL) if gpu else ("cifar10-jpeg", "mnist", SMALL)


def _name_of(method: str) -> str:
    """The name in names of configurations of a kind's usual method, or of the method of this name."""
    kinds = {name: _values(f"{SMALL}/{name}_ipc{size}")["method"]["kind"] for name, size in _shipped(SMALL)}
    if method in METHODS.members:
        usual = METHODS.members[method].__dataclass_fields__["name"].default
        own = [name for name, kind in kinds.items() if kind == method]
        return usual if usual in own else own[0]
    if method not in kinds:
        words = [*METHODS.members, *kinds]
        allowed = f"{', '.join(METHODS.members)}; or a name: {', '.join(sorted(kinds))}"
        raise ConfigError("--method", f"unknown method {method!r}{did_you_mean(method, words)}", allowed=allowed)
    return method


def _shipped(folder: str) -> Iterator[tuple[str, int]]:
    """(method's name, images per class) of every configuration in a folder."""
    for name in presets.names():
        if (match := _NAME.fullmatch(name)) and match["folder"] == folder:
            yield match["method"], int(match["size"])


@cache
def _values(preset: str) -> dict[str, Any]:
    return config.read(presets.root() / f"{preset}{presets.SUFFIX}")
