"""What runs recorded outer step by outer step, thinned for plots: one pass over a file, however long."""

from array import array
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

MOST_POINTS = 1000
SMOOTHED = 20


@dataclass
class Series:
    """A quantity against outer steps: at most twice `MOST_POINTS` of them, evenly spread.

    Args:
        smoothed: how many of the newest values a point is the mean of; 1 for the values as they are.
    """

    smoothed: int = 1
    steps: array = field(init=False, default_factory=lambda: array("q"))
    values: array = field(init=False, default_factory=lambda: array("d"))
    _newest: deque = field(init=False)
    _seen: int = field(init=False, default=0)
    _stride: int = field(init=False, default=1)

    def __post_init__(self) -> None:
        self._newest = deque(maxlen=self.smoothed)

    def add(self, step: int, value: float) -> None:
        """Take the next value; every so-manieth becomes a point."""
        self._newest.append(value)
        if self._seen % self._stride == 0:
            self.steps.append(step)
            self.values.append(sum(self._newest) / len(self._newest))
        self._seen += 1
        if len(self.steps) >= 2 * MOST_POINTS:
            self.steps, self.values = self.steps[::2], self.values[::2]
            self._stride *= 2


def series_of(
    lines: Iterable[Mapping[str, Any]], smoothed: Collection[str], plain: Collection[str]
) -> dict[str, Series]:
    """The series of a run's metrics by name; those that it did not record are left out."""
    series: dict[str, Series] = {}
    for line in lines:
        for names, count in ((smoothed, SMOOTHED), (plain, 1)):
            for name in names:
                value = line.get(name)
                if isinstance(value, float | int) and not isinstance(value, bool):
                    series.setdefault(name, Series(count)).add(line["step"], value)
    return series
