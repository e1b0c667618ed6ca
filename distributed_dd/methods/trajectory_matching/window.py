"""The dimension along which matching windows are searched."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from distributed_dd.family import require, setting
from distributed_dd.nested import at
from distributed_dd.plain_values import shown
from distributed_dd.search.dimensions import Coordinate, Point, Values

MOST_EPOCHS = 1_000_000


@dataclass(frozen=True)
class MatchingWindow:
    """The matching window, for the key method.segments: T- and T+, and T where it expands.

    Always T- <= T <= T+ <= epochs of the experts - M, as start epochs; the configuration's upper bounds,
    which are exclusive, are one step above.
    """

    earliest: float = setting("least T-", 0.0, at_most=MOST_EPOCHS)
    latest: float | None = setting("largest T+ (null: the experts' epochs - M)", None, at_most=MOST_EPOCHS)
    spacing: float | None = setting(
        "epochs between bounds that are tried (null: method.segments.step)", None, at_least=1e-6, at_most=MOST_EPOCHS
    )
    min_width: float | None = setting(
        "least epochs from T- to the exclusive T+ (null: one spacing)", None, at_least=1e-6, at_most=MOST_EPOCHS
    )
    depends_on_others = True

    def _room(self, base: Values) -> tuple[float, int, int]:
        """Spacing; how many fit between ``earliest`` and the highest exclusive bound; least width."""
        epochs, matched = _number_at(base, "experts.num_epochs"), _number_at(base, "method.expert_epochs")
        step = _number_at(base, "method.segments.step")
        last = epochs - matched
        require(
            self.latest is None or self.latest <= last,
            "latest",
            f"{self.latest} leaves no room for a target: experts train for {epochs} epochs, of which M are {matched:g}",
            f"at most {last:g}",
        )
        last = last if self.latest is None else self.latest
        spacing = self.spacing or step
        require(
            spacing >= step and abs(spacing / step - round(spacing / step)) < 1e-9,
            "spacing",
            f"got {spacing:g}",
            f"a multiple of method.segments.step, {step:g}",
        )
        num = math.floor((last + step - self.earliest) / spacing + 1e-9)
        width = max(1, math.ceil((self.min_width or spacing) / spacing - 1e-9))
        require(
            num >= width,
            "earliest",
            f"no window of {width * spacing:g} epochs begins at {self.earliest:g} or later: the last start "
            f"epoch is {last:g} (experts.num_epochs {epochs} - method.expert_epochs "
            f"{matched:g})",
            fix="lower earliest or min_width, or raise experts.num_epochs or latest",
        )
        return spacing, num, width

    def coordinates(self, key: str, base: Values) -> dict[str, Coordinate]:
        """Shares of what is left: T- of all, T+ of what lies above T-, T of what lies between."""
        require(
            key == "method.segments",
            "kind",
            f"matching_window is for method.segments, not for {key}",
            "uniform, log_uniform, integers, choice",
        )
        require(
            at(base, key) is not None,
            "kind",
            f"the base, with method.kind={at(base, 'method.kind')}, has no {key}",
            "a base that matches segments of trajectories",
        )
        self._room(base)
        names = ["start", "end"] + ["initial"] * ("initial_max_start_epoch" in at(base, key))
        return {f"{key}:{name}": Coordinate(low=0.0, high=1.0) for name in names}

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
        reproduced = self.settings(key, point, base)
        return point if all(at(base, name) == value for name, value in reproduced.items()) else None

    def grid(self, key: str, base: Values) -> Iterator[dict[str, float]]:
        """Every window there is; a larger ``spacing`` has fewer."""
        _, num, width = self._room(base)
        for first in range(num - width + 1):
            for end in range(first + width, num + 1):
                point = {
                    f"{key}:start": (first + 0.5) / (num - width + 1),
                    f"{key}:end": (end - first - width + 0.5) / (num - width - first + 1),
                }
                if "initial_max_start_epoch" in at(base, key):
                    for index in range(end - first):
                        yield {**point, f"{key}:initial": (index + 0.5) / (end - first)}
                else:
                    yield point


def _number_at(base: Values, key: str) -> float:
    """A number that the base has at ``key``, or that another dimension sets there."""
    value = at(base, key)
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 1e-6 <= value <= MOST_EPOCHS
    require(usable, "kind", f"{key} is {shown(value)} where the window is worked out", f"up to {MOST_EPOCHS:,} epochs")
    return value


def _share(share: float, num: int) -> int:
    """The number of the piece, of ``num`` equal ones, in which ``share`` of [0, 1] lies."""
    return min(int(share * num), num - 1)
