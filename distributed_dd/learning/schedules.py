"""How a learning rate changes over a training."""

from dataclasses import dataclass
from math import cos, pi
from typing import Protocol

from distributed_dd.family import Family, setting


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A place in a training; epochs and batches are counted from 0."""

    epoch: int
    batch: int
    num_batches: int
    num_epochs: int

    @property
    def step(self) -> int:
        """Steps before it."""
        return self.epoch * self.num_batches + self.batch

    @property
    def num_steps(self) -> int:
        """Steps of the whole training."""
        return self.num_epochs * self.num_batches


class Schedule(Protocol):
    """A factor of the learning rate, step by step."""

    def factor(self, moment: Moment) -> float:
        """What multiplies the rate."""
        ...

    def forgets(self, moment: Moment) -> bool:
        """Whether the optimiser begins anew before this step."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same rate throughout."""

    def factor(self, moment: Moment) -> float:
        """One."""
        return 1.0

    def forgets(self, moment: Moment) -> bool:
        """Never."""
        return False


@dataclass(frozen=True)
class Drop:
    """A lower rate, and a new optimiser, from epoch ``num_epochs // 2 + 1`` on, as DC, DSA, MTT and DATM score."""

    by: float = setting("factor from then on (1: none, and the optimiser is kept)", 0.1, above=0, at_most=1)

    def factor(self, moment: Moment) -> float:
        """One, then ``by``."""
        return self.by if self.by != 1.0 and moment.epoch >= _first_dropped(moment) else 1.0

    def forgets(self, moment: Moment) -> bool:
        """At the drop."""
        return self.by != 1.0 and moment.batch == 0 and moment.epoch == _first_dropped(moment)


def _first_dropped(moment: Moment) -> int:
    return moment.num_epochs // 2 + 1


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from the full rate to a share of it, after a linear warm-up from 0."""

    warm_up_steps: int = setting("steps of the warm-up; at most half of all", 0, at_least=0)
    final: float = setting("share of the rate that is left at the end", 0.0, at_least=0, at_most=1)

    def factor(self, moment: Moment) -> float:
        """Rises to 1 over the warm-up, falls to ``final`` at the end."""
        warm_up = min(self.warm_up_steps, moment.num_steps // 2)
        if moment.step < warm_up:
            return (moment.step + 1) / warm_up
        share = (moment.step - warm_up) / (moment.num_steps - warm_up)
        return self.final + (1 - self.final) * (1 + cos(pi * share)) / 2

    def forgets(self, moment: Moment) -> bool:
        """Never."""
        return False


SCHEDULES = Family("rate schedule", {"constant": Constant, "drop": Drop, "cosine": Cosine})
