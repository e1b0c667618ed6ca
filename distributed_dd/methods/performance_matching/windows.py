"""How much of a student's training is differentiated: all, or a window of it (truncated backpropagation)."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch

from distributed_dd.family import Family, require, setting


class Span(NamedTuple):
    """How many steps a student makes, and the first of them that is differentiated."""

    num_steps: int
    first_back: int


class Window(Protocol):
    """Chooses a span of at most ``student_steps`` steps."""

    def draw(self, student_steps: int, rng: torch.Generator) -> Span:
        """For one outer step."""
        ...

    def check(self, student_steps: int) -> None:
        """Refuse a window that the student's steps cannot hold.

        Raises:
            ConfigError: it is longer.
        """
        ...

    def mean(self, student_steps: int) -> tuple[float, float]:
        """Steps that are made and steps that are differentiated, on average."""
        ...


@dataclass(frozen=True)
class WholeWindow:
    """All steps: the gradient is exact."""

    def draw(self, student_steps: int, rng: torch.Generator) -> Span:
        """Always the same."""
        return Span(student_steps, 0)

    def check(self, student_steps: int) -> None:
        """It always fits."""

    def mean(self, student_steps: int) -> tuple[float, float]:
        """All."""
        return student_steps, student_steps


@dataclass(frozen=True)
class LastWindow:
    """The last steps alone; what was before counts as a constant (truncated backpropagation)."""

    num_steps: int = setting("steps that are differentiated", 20, at_least=1)

    def draw(self, student_steps: int, rng: torch.Generator) -> Span:
        """Always the same."""
        return Span(student_steps, student_steps - self.num_steps)

    def check(self, student_steps: int) -> None:
        """As long as the training at most."""
        _check(self.num_steps, student_steps)

    def mean(self, student_steps: int) -> tuple[float, float]:
        """The forward sweep is whole."""
        return student_steps, self.num_steps


@dataclass(frozen=True)
class RandomWindow:
    """A training of random length, of which the last steps are differentiated (RaT-BPTT, Feng et al., ICLR 2024)."""

    num_steps: int = setting("steps that are differentiated", 20, at_least=1)

    def draw(self, student_steps: int, rng: torch.Generator) -> Span:
        """The end lies anywhere from ``num_steps`` to ``student_steps``, each as likely."""
        end = int(torch.randint(self.num_steps, student_steps + 1, (1,), generator=rng))
        return Span(end, end - self.num_steps)

    def check(self, student_steps: int) -> None:
        """As long as the training at most."""
        _check(self.num_steps, student_steps)

    def mean(self, student_steps: int) -> tuple[float, float]:
        """Half of the room before the window is made too."""
        return (self.num_steps + student_steps) / 2, self.num_steps


def _check(num_steps: int, student_steps: int) -> None:
    require(
        num_steps <= student_steps,
        "window.num_steps",
        f"{num_steps} of {student_steps} student steps",
        f"at most {student_steps}, method.student_steps",
    )


WINDOWS: Family = Family("window", {"whole": WholeWindow, "last": LastWindow, "random": RandomWindow})
