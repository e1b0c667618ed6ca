"""Dimensions of a space, each for one field of a configuration."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from distributed_dd.family import require, setting
from distributed_dd.nested import at

Point = Mapping[str, float]
Values = Mapping[str, Any]
DIGITS = 4
WIDEST = 1e100
"""Of numbers that a searcher proposes: their differences and ratios are finite."""

FARTHEST = 2**51
"""Of whole numbers: how many there are between two is an exact float."""


@dataclass(frozen=True, kw_only=True)
class Coordinate:
    """A number that a searcher proposes, in [low, high]; whole, or spread evenly over its logarithm.

    ``ordered=False`` says that neighbours have nothing in common.
    """

    low: float
    high: float
    integer: bool = False
    log: bool = False
    ordered: bool = True


class Dimension(Protocol):
    """One entry of a space, for the field or group ``key`` of a configuration with the values ``base``.

    ``depends_on_others = True`` says that it reads fields that others may set: it is worked out after them.
    """

    def coordinates(self, key: str, base: Values) -> dict[str, Coordinate]: ...

    def settings(self, key: str, point: Point, base: Values) -> dict[str, Any]:
        """Fields and their values at ``point``."""
        ...

    def located(self, key: str, base: Values) -> dict[str, float] | None:
        """Where ``base`` itself lies; None where it is not in the space."""
        ...

    def grid(self, key: str, base: Values) -> Iterator[dict[str, float]]:
        """Points for a search that tries all, one after the other: there may be very many."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Any number from low to high."""

    low: float = setting("smallest", at_least=-WIDEST, at_most=WIDEST)
    high: float = setting("largest", at_least=-WIDEST, at_most=WIDEST)
    num_grid: int = setting("values that a grid search tries", 4, at_least=2, at_most=10_000)
    log = False

    def __post_init__(self) -> None:
        require(self.low < self.high, "high", f"{self.high:g} is not above low, {self.low:g}")

    def coordinates(self, key: str, base: Values) -> dict[str, Coordinate]:
        """The value itself."""
        return {key: Coordinate(low=self.low, high=self.high, log=self.log)}

    def settings(self, key: str, point: Point, base: Values) -> dict[str, Any]:
        """The value, to four digits: what is written down is what was tried."""
        return {key: min(max(float(f"{point[key]:.{DIGITS}g}"), self.low), self.high)}

    def located(self, key: str, base: Values) -> dict[str, float] | None:
        """The value that the base has."""
        value = at(base, key)
        inside = isinstance(value, int | float) and self.low <= value <= self.high
        return {key: float(value)} if inside else None

    def grid(self, key: str, base: Values) -> Iterator[dict[str, float]]:
        """Evenly spread values, both ends included."""
        for index in range(self.num_grid):
            yield {key: self._at(index / (self.num_grid - 1))}

    def _at(self, share: float) -> float:
        return self.low + share * (self.high - self.low)


@dataclass(frozen=True)
class LogUniform(Uniform):
    """Any number from low to high, as many below as above their geometric mean: for learning rates."""

    low: float = setting("smallest", at_least=1 / WIDEST, at_most=WIDEST)
    high: float = setting("largest", at_least=1 / WIDEST, at_most=WIDEST)
    log = True

    def _at(self, share: float) -> float:
        return self.low * (self.high / self.low) ** share


@dataclass(frozen=True)
class Integers:
    """Whole numbers low, low + step, .. up to high."""

    low: int = setting("smallest", at_least=-FARTHEST, at_most=FARTHEST)
    high: int = setting("largest", at_least=-FARTHEST, at_most=FARTHEST)
    step: int = setting("distance", 1, at_least=1)

    def __post_init__(self) -> None:
        require(self.low < self.high, "high", f"{self.high} is not above low, {self.low}")

    def _values(self) -> range:
        return range(self.low, self.high + 1, self.step)

    def coordinates(self, key: str, base: Values) -> dict[str, Coordinate]:
        """Which of the numbers."""
        return {key: Coordinate(low=0, high=len(self._values()) - 1, integer=True)}

    def settings(self, key: str, point: Point, base: Values) -> dict[str, Any]:
        """The number."""
        return {key: self._values()[int(point[key])]}

    def located(self, key: str, base: Values) -> dict[str, float] | None:
        """Where the base's number is."""
        value = at(base, key)
        # What is no whole number would be compared with all of them, one by one.
        inside = isinstance(value, int) and value in self._values()
        return {key: self._values().index(value)} if inside else None

    def grid(self, key: str, base: Values) -> Iterator[dict[str, float]]:
        """All of them."""
        for index in range(len(self._values())):
            yield {key: index}


@dataclass(frozen=True)
class Choice:
    """One of the listed values, or of listed groups; a group with a kind may be named by it."""

    values: tuple[Any, ...] = setting("what may be chosen")

    def __post_init__(self) -> None:
        require(len(self.values) >= 2, "values", f"holds {len(self.values)}", "2 or more")

    def coordinates(self, key: str, base: Values) -> dict[str, Coordinate]:
        """Which of the values."""
        return {key: Coordinate(low=0, high=len(self.values) - 1, integer=True, ordered=False)}

    def settings(self, key: str, point: Point, base: Values) -> dict[str, Any]:
        """The value; a name of a kind as a group, which is laid over the base's own where that is of this kind."""
        return {key: _as_group(self.values[int(point[key])], at(base, key))}

    def located(self, key: str, base: Values) -> dict[str, float] | None:
        """Which of them the base has."""
        has = at(base, key)
        places = (index for index, value in enumerate(self.values) if _is_in(_as_group(value, has), has))
        index = next(places, None)
        return None if index is None else {key: index}

    def grid(self, key: str, base: Values) -> Iterator[dict[str, float]]:
        """All of them."""
        for index in range(len(self.values)):
            yield {key: index}


def _as_group(value: Any, has: Any) -> Any:
    """``value`` with names of kinds as groups, wherever the base has a group of some kind."""
    if not isinstance(has, Mapping):
        return value
    if isinstance(value, str) and "kind" in has:
        return {"kind": value}
    if isinstance(value, Mapping) and value.get("kind", has.get("kind")) == has.get("kind"):
        return {name: _as_group(inner, has.get(name)) for name, inner in value.items()}
    return value


def _is_in(value: Any, has: Any) -> bool:
    """Whether what is there has all that ``value`` says."""
    if isinstance(value, Mapping) and isinstance(has, Mapping):
        return all(_is_in(inner, has.get(name)) for name, inner in value.items())
    return bool(value == has)
