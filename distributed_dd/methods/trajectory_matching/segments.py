"""Which part of an expert trajectory a student is asked to follow."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch

from distributed_dd.family import Family, require, setting


class Segments(Protocol):
    """Draws start epochs."""

    @property
    def step(self) -> float:
        """Epochs from one possible start to the next."""
        ...

    def starts(self) -> list[float]:
        """Every start epoch that can be drawn, ascending."""
        ...

    def draw(self, outer_step: int, rng: torch.Generator) -> float: ...

    def reached(self, outer_step: int) -> tuple[float, float]:
        """First and last start epoch that can be drawn up to and with ``outer_step``."""
        ...


@dataclass(frozen=True)
class Window:
    """Start epochs uniform in [min_start_epoch, max_start_epoch) throughout (MTT, FTD, late DATM)."""

    max_start_epoch: float = setting("T+, exclusive", at_most=1_000_000)
    min_start_epoch: float = setting("T-", 0.0)
    step: float = setting("epochs from one possible start to the next; fractions must be kept", 1.0, at_least=1e-6)

    def __post_init__(self) -> None:
        _check(self.min_start_epoch, self.max_start_epoch, self.step, "max_start_epoch")

    def starts(self) -> list[float]:
        """T-, T- + step, .. below T+."""
        return _grid(self.min_start_epoch, self.max_start_epoch, self.step)

    def draw(self, outer_step: int, rng: torch.Generator) -> float:
        """A start epoch for this outer step."""
        return _uniform(self.starts(), rng)

    def reached(self, outer_step: int) -> tuple[float, float]:
        """The whole window."""
        return self.min_start_epoch, self.max_start_epoch - self.step


@dataclass(frozen=True, kw_only=True)
class Expanding:
    """DATM's sequential window: [T-, UB) with UB growing from T to T+ (ICLR 2024)."""

    max_start_epoch: float = setting("T+, exclusive", at_most=1_000_000)
    initial_max_start_epoch: float = setting("T: the upper bound at outer step 0, exclusive", at_most=1_000_000)
    expansion_steps: int = setting("outer steps over which the bound grows from T to T+", at_least=1)
    min_start_epoch: float = setting("T-", 0.0)
    step: float = setting("epochs from one possible start to the next; fractions must be kept", 1.0, at_least=1e-6)

    def __post_init__(self) -> None:
        _check(self.min_start_epoch, self.initial_max_start_epoch, self.step, "initial_max_start_epoch")
        _check(self.min_start_epoch, self.max_start_epoch, self.step, "max_start_epoch")
        require(
            self.initial_max_start_epoch <= self.max_start_epoch,
            "initial_max_start_epoch",
            f"{self.initial_max_start_epoch:g} is above max_start_epoch",
            f"at most {self.max_start_epoch:g}",
        )

    def upper_bound(self, outer_step: int) -> float:
        """min(T+, T + int((T+ - T) step / expansion_steps)), exclusive."""
        growth = (self.max_start_epoch - self.initial_max_start_epoch) * outer_step // self.expansion_steps
        return min(self.max_start_epoch, self.initial_max_start_epoch + growth)

    def starts(self) -> list[float]:
        """T-, T- + step, .. below T+."""
        return _grid(self.min_start_epoch, self.max_start_epoch, self.step)

    def draw(self, outer_step: int, rng: torch.Generator) -> float:
        """A start epoch for this outer step."""
        return _uniform(_grid(self.min_start_epoch, self.upper_bound(outer_step), self.step), rng)

    def reached(self, outer_step: int) -> tuple[float, float]:
        """As far as it has grown."""
        return self.min_start_epoch, self.upper_bound(outer_step) - self.step


MOST_STARTS, ROUNDING = 1_000_000, 1e-9


def _grid(low: float, high: float, step: float) -> list[float]:
    count = math.ceil((high - low) / step - ROUNDING)
    return [round(low + index * step, 6) for index in range(count)]


def _uniform(starts: list[float], rng: torch.Generator) -> float:
    return starts[int(torch.randint(len(starts), (1,), generator=rng))]


def _check(low: float, high: float, step: float, where: str) -> None:
    room = (high - low) / step
    require(room > ROUNDING, where, f"{high:g} leaves no start epoch at or above {low:g}", f"above {low:g}")
    require(room <= MOST_STARTS, "step", f"{step:g} gives too many starts", f"{MOST_STARTS:,} at most")


SEGMENTS = Family("segments", {"expanding": Expanding, "window": Window})
