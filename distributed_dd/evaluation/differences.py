"""The settings in which runs differ, as people type them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MOST_DIFFERENCES = 3


def varied(described: Sequence[Mapping[str, Any]]) -> set[str]:
    """Keys that not all have with one value; each value is looked at once."""
    values: dict[str, list[str]] = defaultdict(list)
    for settings in described:
        for key, value in settings.items():
            values[key].append(repr(value))
    return {key for key, seen in values.items() if len({*seen}) > 1 or len(seen) < len(described)}


def typed(settings: Mapping[str, Any], keys: Iterable[str], otherwise: str) -> list[str]:
    """The values of ``keys`` as typed on the command line; ``otherwise`` where they are too many to be read."""
    wanted = {*keys}
    differences = [f"{key}={value}" for key, value in settings.items() if key in wanted]
    return differences if len(differences) <= MOST_DIFFERENCES else [otherwise]
