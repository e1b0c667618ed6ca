"""What a sweep varies: fields of a configuration, each along a dimension, chosen by kind.

A dimension is searched in *coordinates*, plain numbers that any searcher can propose; together they are a
*point*. Settings follow from the point. A matching window is one dimension of three coordinates in [0, 1], so
that whatever is proposed is a window that the experts have.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from distributed_dd.distillation.chance import generator
from distributed_dd.errors import ConfigError
from distributed_dd.family import Family, at, build_member, placed, require, setting

Point = Mapping[str, float]
Values = Mapping[str, Any]
DIGITS = 4


@dataclass(frozen=True)
class Coordinate:
    """A number that a searcher proposes, in [low, high]; whole, or spread evenly over its logarithm.

    ``ordered=False`` says that neighbours have nothing in common.
    """

    low: float
    high: float
    whole: bool = False
    log: bool = False
    ordered: bool = True


class Dimension(Protocol):
    """One entry of a space, for the field or group ``key`` of a configuration with the values ``base``."""

    def coordinates(self, key: str, base: Values) -> dict[str, Coordinate]: ...

    def settings(self, key: str, point: Point, base: Values) -> dict[str, Any]:
        """Fields and their values at ``point``."""
        ...

    def located(self, key: str, base: Values) -> dict[str, float] | None:
        """Where ``base`` itself lies; None where it is not in the space."""
        ...

    def grid(self, key: str, base: Values) -> list[dict[str, float]]:
        """Points for a search that tries all."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Any number from low to high."""

    low: float = setting("smallest")
    high: float = setting("largest")
    num_grid: int = setting("values that a grid search tries", 4)
    log = False

    def __post_init__(self) -> None:
        require(self.low < self.high, "high", f"{self.high:g} is not above low, {self.low:g}")
        require(self.num_grid >= 2, "num_grid", f"got {self.num_grid}", "2 or more")

    def coordinates(self, key: str, base: Values) -> dict[str, Coordinate]:
        """The value itself."""
        return {key: Coordinate(self.low, self.high, log=self.log)}

    def settings(self, key: str, point: Point, base: Values) -> dict[str, Any]:
        """The value, to four digits: what is written down is what was tried."""
        return {key: min(max(float(f"{point[key]:.{DIGITS}g}"), self.low), self.high)}

    def located(self, key: str, base: Values) -> dict[str, float] | None:
        """The value that the base has."""
        value = at(base, key)
        inside = isinstance(value, int | float) and self.low <= value <= self.high
        return {key: float(value)} if inside else None

    def grid(self, key: str, base: Values) -> list[dict[str, float]]:
        """Evenly spread values, both ends included."""
        shares = [index / (self.num_grid - 1) for index in range(self.num_grid)]
        return [{key: self._at(share)} for share in shares]

    def _at(self, share: float) -> float:
        return self.low + share * (self.high - self.low)


@dataclass(frozen=True)
class LogUniform(Uniform):
    """Any number from low to high, as many below as above their geometric mean: for learning rates."""

    log = True

    def __post_init__(self) -> None:
        require(self.low > 0, "low", f"got {self.low:g}", "above 0")
        super().__post_init__()

    def _at(self, share: float) -> float:
        return self.low * (self.high / self.low) ** share


@dataclass(frozen=True)
class Integers:
    """Whole numbers low, low + step, .. up to high."""

    low: int = setting("smallest")
    high: int = setting("largest")
    step: int = setting("distance", 1)

    def __post_init__(self) -> None:
        require(self.step >= 1, "step", f"got {self.step}", "1 or more")
        require(self.low < self.high, "high", f"{self.high} is not above low, {self.low}")

    def _values(self) -> range:
        return range(self.low, self.high + 1, self.step)

    def coordinates(self, key: str, base: Values) -> dict[str, Coordinate]:
        """Which of the numbers."""
        return {key: Coordinate(0, len(self._values()) - 1, whole=True)}

    def settings(self, key: str, point: Point, base: Values) -> dict[str, Any]:
        """The number."""
        return {key: self._values()[int(point[key])]}

    def located(self, key: str, base: Values) -> dict[str, float] | None:
        """Where the base's number is."""
        value = at(base, key)
        return {key: self._values().index(value)} if value in self._values() else None

    def grid(self, key: str, base: Values) -> list[dict[str, float]]:
        """All of them."""
        return [{key: index} for index in range(len(self._values()))]


@dataclass(frozen=True)
class Choice:
    """One of the listed values, or of listed groups."""

    values: tuple[Any, ...] = setting("what may be chosen")

    def __post_init__(self) -> None:
        require(len(self.values) >= 2, "values", f"holds {len(self.values)}", "2 or more")

    def coordinates(self, key: str, base: Values) -> dict[str, Coordinate]:
        """Which of the values."""
        return {key: Coordinate(0, len(self.values) - 1, whole=True, ordered=False)}

    def settings(self, key: str, point: Point, base: Values) -> dict[str, Any]:
        """The value."""
        return {key: self.values[int(point[key])]}

    def located(self, key: str, base: Values) -> dict[str, float] | None:
        """Which of them the base has."""
        has = at(base, key)
        places = (index for index, value in enumerate(self.values) if _is_in(value, has))
        index = next(places, None)
        return None if index is None else {key: index}

    def grid(self, key: str, base: Values) -> list[dict[str, float]]:
        """All of them."""
        return [{key: index} for index in range(len(self.values))]


def _is_in(value: Any, has: Any) -> bool:
    """Whether what is there has all that ``value`` says."""
    if isinstance(value, Mapping) and isinstance(has, Mapping):
        return all(_is_in(inner, has.get(name)) for name, inner in value.items())
    return bool(value == has)


@dataclass(frozen=True)
class MatchingWindow:
    """The matching window, for the key method.segments: T- and T+, and T where it expands.

    Always T- <= T <= T+ <= epochs of the experts - M, as start epochs; the configuration's upper bounds,
    which are exclusive, are one step above.
    """

    earliest: float = setting("least T-", 0.0)
    latest: float | None = setting("largest T+ (null: the experts' epochs - M)", None)
    spacing: float | None = setting("epochs between bounds that are tried (null: method.segments.step)", None)
    min_width: float | None = setting("least epochs from T- to the exclusive T+ (null: one spacing)", None)

    def __post_init__(self) -> None:
        require(self.earliest >= 0, "earliest", f"got {self.earliest:g}", "0 or more")
        for name in ("spacing", "min_width"):
            value = getattr(self, name)
            require(value is None or value > 0, name, f"got {value}", "above 0, or null")

    def _room(self, base: Values) -> tuple[float, int, int]:
        """Spacing; how many fit between ``earliest`` and the highest exclusive bound; least width."""
        segments, epochs = at(base, "method.segments"), at(base, "experts.num_epochs")
        last = epochs - at(base, "method.expert_epochs")
        require(
            self.latest is None or self.latest <= last, "latest",
            f"{self.latest} leaves no room for a target: experts train for {epochs} epochs, of which M are "
            f"{at(base, 'method.expert_epochs'):g}", f"at most {last:g}",
        )  # fmt: skip
        last = last if self.latest is None else self.latest
        step = segments["step"]
        spacing = self.spacing or step
        require(
            abs(spacing / step - round(spacing / step)) < 1e-9, "spacing", f"got {spacing:g}",
            f"a multiple of method.segments.step, {step:g}",
        )  # fmt: skip
        num = math.floor((last + step - self.earliest) / spacing + 1e-9)
        width = max(1, math.ceil((self.min_width or spacing) / spacing - 1e-9))
        require(
            num >= width, "earliest",
            f"no window of {width * spacing:g} epochs begins at {self.earliest:g} or later: the last start "
            f"epoch is {last:g} (experts.num_epochs {epochs} - method.expert_epochs "
            f"{at(base, 'method.expert_epochs'):g})",
            fix="lower earliest or min_width, or raise experts.num_epochs or latest",
        )  # fmt: skip
        return spacing, num, width

    def coordinates(self, key: str, base: Values) -> dict[str, Coordinate]:
        """Shares of what is left: T- of all, T+ of what lies above T-, T of what lies between."""
        require(
            key == "method.segments", "kind", f"matching_window is for method.segments, not for {key}",
            "uniform, log_uniform, integers, choice",
        )  # fmt: skip
        self._room(base)
        names = ["start", "end"] + ["initial"] * ("initial_max_start_epoch" in at(base, key))
        return {f"{key}:{name}": Coordinate(0.0, 1.0) for name in names}

    def settings(self, key: str, point: Point, base: Values) -> dict[str, Any]:
        """The bounds."""
        spacing, num, width = self._room(base)
        first = _share(point[f"{key}:start"], num - width + 1)
        end = first + width + _share(point[f"{key}:end"], num - width - first + 1)
        bounds = {"min_start_epoch": first}
        if f"{key}:initial" in point:
            bounds["initial_max_start_epoch"] = first + 1 + _share(point[f"{key}:initial"], end - first)
        bounds["max_start_epoch"] = end
        return {f"{key}.{name}": round(self.earliest + place * spacing, 6) for name, place in bounds.items()}

    def located(self, key: str, base: Values) -> dict[str, float] | None:
        """Where the base's window lies."""
        segments, (spacing, num, width) = at(base, key), self._room(base)

        def place(bound: str) -> int:
            return round((segments[bound] - self.earliest) / spacing)

        first, end = place("min_start_epoch"), place("max_start_epoch")
        if not (first >= 0 and first + width <= end <= num):
            return None
        point = {
            f"{key}:start": (first + 0.5) / (num - width + 1),
            f"{key}:end": (end - first - width + 0.5) / (num - width - first + 1),
        }
        if "initial_max_start_epoch" in segments:
            initial = place("initial_max_start_epoch")
            point[f"{key}:initial"] = (initial - first - 0.5) / (end - first)
        found = self.settings(key, point, base)
        return point if all(at(base, name) == value for name, value in found.items()) else None

    def grid(self, key: str, base: Values) -> list[dict[str, float]]:
        """Every window there is; a larger ``spacing`` has fewer."""
        _, num, width = self._room(base)
        points = []
        for first in range(num - width + 1):
            for end in range(first + width, num + 1):
                point = {
                    f"{key}:start": (first + 0.5) / (num - width + 1),
                    f"{key}:end": (end - first - width + 0.5) / (num - width - first + 1),
                }
                if "initial_max_start_epoch" in at(base, key):
                    inner = [(index + 0.5) / (end - first) for index in range(end - first)]
                    points += [{**point, f"{key}:initial": share} for share in inner]
                else:
                    points.append(point)
        return points


def _share(share: float, num: int) -> int:
    """The number of the piece, of ``num`` equal ones, in which ``share`` of [0, 1] lies."""
    return min(int(share * num), num - 1)


DIMENSIONS = Family(
    "dimension",
    {
        "matching_window": MatchingWindow, "log_uniform": LogUniform, "uniform": Uniform,
        "integers": Integers, "choice": Choice,
    },
)  # fmt: skip


@dataclass(frozen=True)
class Space:
    """All dimensions of a sweep, in the order in which they are worked out.

    Attributes:
        told: their keys in the order in which a person gave them.
    """

    dimensions: Mapping[str, Dimension]
    told: tuple[str, ...]

    @staticmethod
    def of(given: Mapping[str, Any]) -> "Space":
        """From the ``space`` of a sweep file.

        Raises:
            ConfigError: it is empty, or a dimension is of an unknown kind or no dimension.
        """
        require(bool(given), "space", "is empty", "fields of a configuration, each with a kind")
        members = {key: build_member(DIMENSIONS, value, f"space.{key}") for key, value in given.items()}
        # A window depends on fields that others may set.
        ordered = sorted(members, key=lambda key: isinstance(members[key], MatchingWindow))
        return Space({key: members[key] for key in ordered}, tuple(members))

    def coordinates(self, base: Values) -> dict[str, Coordinate]:
        """Of all dimensions."""
        found: dict[str, Coordinate] = {}
        for key, dimension in self.dimensions.items():
            found |= _explained(key, dimension.coordinates, key, base)
        return found

    def settings(self, point: Point, base: Values) -> dict[str, Any]:
        """The fields that ``point`` sets, by ``key.path``.

        Raises:
            ConfigError: two dimensions set the same field.
        """
        found: dict[str, Any] = {}
        by_key: dict[str, dict[str, Any]] = {}
        for key, dimension in self.dimensions.items():
            by_key[key] = _explained(key, dimension.settings, key, point, laid_over(base, found))
            twice = ", ".join(by_key[key].keys() & found.keys())
            require(not twice, f"space.{key}", f"sets {twice}, which another dimension sets too")
            found |= by_key[key]
        return {name: value for key in self.told for name, value in by_key[key].items()}

    def located(self, base: Values) -> dict[str, float] | None:
        """Where the base lies; None where it is not in the space."""
        found: dict[str, float] = {}
        for key, dimension in self.dimensions.items():
            place = _explained(key, dimension.located, key, base)
            if place is None:
                return None
            found |= place
        return found

    def grid(self, base: Values) -> list[dict[str, float]]:
        """The product of the grids of all dimensions."""
        found: list[tuple[dict[str, float], Values]] = [({}, base)]
        for key, dimension in self.dimensions.items():
            found = [
                ({**point, **more}, laid_over(values, dimension.settings(key, more, values)))
                for point, values in found
                for more in _explained(key, dimension.grid, key, values)
            ]
        return [point for point, _ in found]

    def probes(self, base: Values, seed: int, num: int = 64) -> list[dict[str, float]]:
        """Corners and random points: what a sweep may come across, to be checked before it begins."""
        coordinates = self.coordinates(base)
        rng = generator(seed, "probes of a space")
        shares: list[Sequence[float]] = list(itertools.islice(
            itertools.product((0.0, 1.0), repeat=len(coordinates)), num
        ))  # fmt: skip
        shares += torch.rand(num, len(coordinates), generator=rng).tolist()
        return [
            {name: _between(c, share) for (name, c), share in zip(coordinates.items(), row, strict=True)}
            for row in shares
        ]

    def touches(self, *prefixes: str) -> bool:
        """Whether a dimension sets a field at or below one of the ``prefixes``."""
        return any((key + ".").startswith(f"{prefix}.") for key in self.dimensions for prefix in prefixes)


def laid_over(base: Values, settings: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with fields set by ``key.path``."""
    values = dict(base)
    for key, value in settings.items():
        values = placed(values, key, value)
    return values


def _between(coordinate: Coordinate, share: float) -> float:
    low, high = coordinate.low, coordinate.high
    value = low * (high / low) ** share if coordinate.log else low + share * (high - low)
    return round(value) if coordinate.whole else value


def _explained(key: str, call: Any, *given: Any) -> Any:
    try:
        return call(*given)
    except ConfigError as error:
        where = f"space.{key}.{error.where}"
        raise ConfigError(where, error.problem, allowed=error.allowed, fix=error.fix) from None
