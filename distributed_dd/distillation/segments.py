"""Which part of an expert trajectory a student is asked to follow."""

from dataclasses import dataclass
from typing import Protocol

import torch

from distributed_dd.family import Family, require, setting


class Segments(Protocol):
    """Draws start epochs; ``max_start_epoch`` is exclusive."""

    @property
    def max_start_epoch(self) -> int: ...

    def draw(self, outer_step: int, rng: torch.Generator) -> int: ...


@dataclass(frozen=True)
class Window:
    """Start epochs uniform in [min_start_epoch, max_start_epoch) throughout (MTT, FTD, late DATM)."""

    max_start_epoch: int = setting("T+, exclusive")
    min_start_epoch: int = setting("T-", 0)

    def __post_init__(self) -> None:
        _check(self.min_start_epoch, self.max_start_epoch, "max_start_epoch")

    def draw(self, outer_step: int, rng: torch.Generator) -> int:
        """A start epoch for this outer step."""
        return _uniform(self.min_start_epoch, self.max_start_epoch, rng)


@dataclass(frozen=True)
class Expanding:
    """DATM's sequential window: [T-, UB) with UB growing from T to T+ (ICLR 2024)."""

    max_start_epoch: int = setting("T+, exclusive")
    initial_max_start_epoch: int = setting("T: the upper bound at outer step 0, exclusive")
    expansion_steps: int = setting("outer steps over which the bound grows from T to T+")
    min_start_epoch: int = setting("T-", 0)

    def __post_init__(self) -> None:
        _check(self.min_start_epoch, self.initial_max_start_epoch, "initial_max_start_epoch")
        require(
            self.initial_max_start_epoch <= self.max_start_epoch,
            "initial_max_start_epoch", f"{self.initial_max_start_epoch} is above max_start_epoch",
            f"at most {self.max_start_epoch}",
        )  # fmt: skip
        require(self.expansion_steps >= 1, "expansion_steps", f"got {self.expansion_steps}", "1 or more")

    def upper_bound(self, outer_step: int) -> int:
        """min(T+, T + int((T+ - T) step / expansion_steps)), exclusive."""
        growth = (self.max_start_epoch - self.initial_max_start_epoch) * outer_step // self.expansion_steps
        return min(self.max_start_epoch, self.initial_max_start_epoch + growth)

    def draw(self, outer_step: int, rng: torch.Generator) -> int:
        """A start epoch for this outer step."""
        return _uniform(self.min_start_epoch, self.upper_bound(outer_step), rng)


def _uniform(low: int, high: int, rng: torch.Generator) -> int:
    return int(torch.randint(low, high, (1,), generator=rng))


def _check(low: int, high: int, where: str) -> None:
    require(low >= 0, "min_start_epoch", f"got {low}", "0 or more")
    require(high > low, where, f"{high} leaves no start epoch at or above {low}", f"{low + 1} or more")


SEGMENTS = Family("segments", {"expanding": Expanding, "window": Window})
