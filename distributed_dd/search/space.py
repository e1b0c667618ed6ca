"""What a sweep varies: fields of a configuration, each along a dimension, chosen by kind.

A dimension is searched in *coordinates*, plain numbers that any searcher can propose; together they are a
*point*. Settings follow from the point. A matching window is one dimension of three coordinates in [0, 1], so
that whatever is proposed is a window that the experts have.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from distributed_dd.errors import ConfigError
from distributed_dd.family import Family, build_member, require
from distributed_dd.learning.chance import generator
from distributed_dd.nested import flattened, laid_over, placed
from distributed_dd.search.dimensions import Choice, Coordinate, Dimension, Integers, LogUniform, Point, Uniform, Values

SIMPLE_DIMENSIONS: Mapping[str, type] = {
    "log_uniform": LogUniform,
    "uniform": Uniform,
    "integers": Integers,
    "choice": Choice,
}
"""Dimensions of any field, by kind."""
MOST_DIMENSIONS = 100


@dataclass(frozen=True)
class Space:
    """All dimensions of a sweep, in the order in which they are worked out.

    Attributes:
        keys_in_order: their keys in the order in which a person gave them.
    """

    dimensions: Mapping[str, Dimension]
    keys_in_order: tuple[str, ...]

    @staticmethod
    def of(entries: Mapping[str, Any], family: Family) -> "Space":
        """From the ``space`` of a sweep file, of dimensions in ``family``.

        Raises:
            ConfigError: the space is empty, or an entry is no dimension of a known kind.
        """
        require(bool(entries), "space", "is empty", "fields of a configuration, each with a kind")
        flat = _by_path(entries)
        require(len(flat) <= MOST_DIMENSIONS, "space", f"holds {len(flat)} dimensions", f"at most {MOST_DIMENSIONS}")
        members = {key: build_member(family, value, f"space.{key}") for key, value in flat.items()}
        ordered = sorted(members, key=lambda key: getattr(members[key], "depends_on_others", False))
        return Space({key: members[key] for key in ordered}, tuple(members))

    def coordinates(self, base: Values) -> dict[str, Coordinate]:
        """Of all dimensions."""
        coordinates: dict[str, Coordinate] = {}
        for key, dimension in self.dimensions.items():
            coordinates |= _explained(key, dimension.coordinates, key, base)
        return coordinates

    def settings(self, point: Point, base: Values) -> dict[str, Any]:
        """The fields that ``point`` sets, by ``key.path``.

        Raises:
            ConfigError: two dimensions set the same field.
        """
        settings: dict[str, Any] = {}
        by_key: dict[str, dict[str, Any]] = {}
        for key, dimension in self.dimensions.items():
            by_key[key] = _explained(key, dimension.settings, key, point, laid_over(base, settings))
            twice = ", ".join(_both(by_key[key], settings))
            require(not twice, f"space.{key}", f"sets {twice}, which another dimension sets too")
            settings |= by_key[key]
        return {name: value for key in self.keys_in_order for name, value in by_key[key].items()}

    def located(self, base: Values) -> dict[str, float] | None:
        """Where the base lies; None where it is not in the space."""
        point: dict[str, float] = {}
        for key, dimension in self.dimensions.items():
            place = _explained(key, dimension.located, key, base)
            if place is None:
                return None
            point |= place
        return point

    def grid(self, base: Values) -> Iterator[dict[str, float]]:
        """The product of the grids of all dimensions, the last one varying fastest; made as it is asked for."""
        return self._grid([*self.dimensions.items()], {}, base)

    def _grid(
        self, dimensions: Sequence[tuple[str, Dimension]], point: dict[str, float], values: Values
    ) -> Iterator[dict[str, float]]:
        if not dimensions:
            yield point
            return
        (key, dimension), *rest = dimensions
        for more in _explained(key, dimension.grid, key, values):
            settings = _explained(key, dimension.settings, key, more, values)
            yield from self._grid(rest, {**point, **more}, laid_over(values, settings))

    def probes(self, base: Values, seed: int, num: int = 64) -> list[dict[str, float]]:
        """Corners and random points: what a sweep may come across, to be checked before it begins."""
        coordinates = self.coordinates(base)
        rng = generator(seed, "probes of a space")
        shares: list[Sequence[float]] = list(
            itertools.islice(itertools.product((0.0, 1.0), repeat=len(coordinates)), num)
        )
        shares += torch.rand(num, len(coordinates), generator=rng).tolist()
        return [
            {name: _between(c, share) for (name, c), share in zip(coordinates.items(), row, strict=True)}
            for row in shares
        ]

    def touches(self, *prefixes: str) -> bool:
        """Whether a dimension sets a field at or below one of the ``prefixes``."""
        return any((key + ".").startswith(f"{prefix}.") for key in self.dimensions for prefix in prefixes)


def _by_path(entries: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dimensions by ``key.path``, however they were nested; what comes later is laid over what was there."""
    by_path: dict[str, Any] = {}
    for name, value in entries.items():
        key = f"{prefix}{name}"
        deeper = (
            isinstance(value, Mapping)
            and value
            and not isinstance(value.get("kind", {}), str)  # else a dimension; of a swept kind, one more group
            and any(isinstance(inner, Mapping) for inner in value.values())
        )
        for path, one in (_by_path(value, f"{key}.") if deeper else {key: value}).items():
            both = isinstance(one, Mapping) and isinstance(by_path.get(path), Mapping)
            by_path[path] = placed({"": by_path[path]}, "", one)[""] if both else one
    return by_path


def _both(settings: Values, others: Values) -> list[str]:
    """Fields that both set, alone or as a part of a group."""
    known = [f"{path}." for path, _ in flattened(others)]
    return [path for path, _ in flattened(settings) if any(_one_holds_the_other(f"{path}.", key) for key in known)]


def _one_holds_the_other(path: str, other: str) -> bool:
    return path.startswith(other) or other.startswith(path)


def _between(coordinate: Coordinate, share: float) -> float:
    low, high = coordinate.low, coordinate.high
    value = low * (high / low) ** share if coordinate.log else low + share * (high - low)
    return round(value) if coordinate.integer else value


def _explained(key: str, call: Any, *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except ConfigError as error:
        where = f"space.{key}.{error.where}"
        raise ConfigError(where, error.problem, allowed=error.allowed, fix=error.fix) from None
