"""Nested groups of plain values, and the ``key.path`` of each value in them. Standard library only."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested groups as (``key.path``, value), as typed on the command line."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def at(values: Mapping[str, Any], key: str) -> Any:
    """What ``values`` holds at ``key.path``; None where the path leads nowhere."""
    value: Any = values
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def placed(values: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of ``values`` with ``value`` at ``key.path``; a group is laid over the group that is there.

    A new ``kind`` takes a group's other keys away: they belonged to the old kind.
    """
    first, _, rest = key.partition(".")
    there = values.get(first)
    group: dict[str, Any] = dict(there) if isinstance(there, Mapping) else {}
    if rest:
        return {**values, first: placed(group, rest, value)}
    if not isinstance(value, Mapping):
        renamed = first == "kind" and there not in (None, value)
        return {**({} if renamed else values), first: value}
    if value.get("kind", group.get("kind")) != group.get("kind"):
        group = {}
    for name, inner in value.items():
        group = placed(group, name, inner)
    return {**values, first: group}


def laid_over(values: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with every key of ``above``, plain or a ``key.path``, `placed` in them, `kinds_first`."""
    merged = dict(values)
    for key in kinds_first(above):
        merged = placed(merged, key, above[key])
    return merged


def kinds_first(keys: Iterable[str]) -> list[str]:
    """Keys in their order, but a group's ``kind`` before other keys of the group, which it would take away."""
    ordered: list[str] = []
    for key in keys:
        group, _, name = key.rpartition(".")
        place = len(ordered)
        if group and name == "kind":
            # Behind what sets the group itself: of two that say its kind the later one holds.
            behind = max((i + 1 for i, other in enumerate(ordered) if f"{key}.".startswith(f"{other}.")), default=0)
            below = (i for i, other in enumerate(ordered) if i >= behind and other.startswith(f"{group}."))
            place = next(below, place)
        ordered.insert(place, key)
    return ordered
