"""Ranges of numbers in a configuration: every number has one. Standard library only."""

import math
from dataclasses import dataclass
from typing import Any

from distributed_dd.errors import ConfigError

LARGEST_INT = 2**53
"""Beyond it a whole number is no exact float any more."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Bounds of a number, each None where there is none; beyond them only finite numbers pass."""

    at_least: float | None = 0
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def __str__(self) -> str:
        if self.above is not None and self.below is not None:
            return f"between {_said(self.above)} and {_said(self.below)}"
        low = f"{_said(self.at_least)} or more" if self.at_least is not None else ""
        low = f"above {_said(self.above)}" if self.above is not None else low
        high = f"at most {_said(self.at_most)}" if self.at_most is not None else ""
        high = f"below {_said(self.below)}" if self.below is not None else high
        return ", ".join(filter(None, (low, high))) or "a finite number"

    def check(self, value: Any, path: str, or_null: bool = False) -> None:
        """Refuse a number outside, also among the entries of a tuple; anything else passes.

        Raises:
            ConfigError: it is outside, or not finite.
        """
        if isinstance(value, tuple):
            for index, entry in enumerate(value):
                self.check(entry, f"{path}[{index}]")
        elif isinstance(value, int | float) and not isinstance(value, bool) and not self.holds(value):
            allowed = str(self) + (", or null" if or_null else "")
            raise ConfigError(path, f"got {_shown(value)}", allowed=allowed)

    def holds(self, number: float) -> bool:
        """Whether a number is inside."""
        if isinstance(number, int) and abs(number) > LARGEST_INT:
            return False
        return (
            math.isfinite(number)
            and (self.at_least is None or number >= self.at_least)
            and (self.above is None or number > self.above)
            and (self.at_most is None or number <= self.at_most)
            and (self.below is None or number < self.below)
        )


def _shown(number: float) -> str:
    if isinstance(number, int) and abs(number) > LARGEST_INT:
        return f"a whole number of {number.bit_length()} bits"
    return str(number)


def _said(bound: float) -> str:
    """A bound as a person writes it: 1,000,000 and not 1e+06."""
    return f"{int(bound):,}" if bound == int(bound) and abs(bound) < 1e16 else f"{bound:g}"
