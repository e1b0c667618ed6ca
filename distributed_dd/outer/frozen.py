"""Rows of a set that are real images and never change, and which real images they are.

SelMatch (ICML 2024) starts a large set from a window of difficulty and distils a part of it; CCFS (CVPR 2025) adds hard
real images to a distilled core. Here the first rows of each class are the frozen ones.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from distributed_dd.family import Family, choice, require, setting


class Choice(Protocol):
    """Chooses among the real images of a class.

    Attributes:
        ranked: whether they must be ranked by difficulty.
    """

    ranked: ClassVar[bool]

    def available(self, num: int) -> int:
        """How many of the ``num`` images of a class it chooses from."""
        ...

    def places(self, num: int, number: int, rng: torch.Generator) -> Tensor:
        """Places (number,) of those it takes among ``num`` of a class; the hardest first where they are ranked."""
        ...


@dataclass(frozen=True)
class AtRandom:
    """Any of them, at random."""

    ranked: ClassVar[bool] = False

    def available(self, num: int) -> int:
        """All."""
        return num

    def places(self, num: int, number: int, rng: torch.Generator) -> Tensor:
        """Without replacement."""
        return torch.randperm(num, generator=rng)[:number]


@dataclass(frozen=True)
class ByDifficulty:
    """Those within a window of difficulty, ranked from easy to hard within their class (EL2N of the experts)."""

    ranked: ClassVar[bool] = True

    start: float = setting("share of a class, its easiest images, that lies below the window", 0.0, below=1)
    end: float = setting("share of a class that lies below the window's end; the rest, the hardest, is above", 1.0)
    pick: Literal["hardest", "easiest", "random"] = setting("which of those within the window", "hardest")

    def __post_init__(self) -> None:
        require(self.start < self.end <= 1, "end", f"got {self.end:g}", f"above start ({self.start:g}), at most 1")

    def _window(self, num: int) -> tuple[int, int]:
        return round(self.start * num), round(self.end * num)

    def available(self, num: int) -> int:
        """Those within the window."""
        first, last = self._window(num)
        return last - first

    def places(self, num: int, number: int, rng: torch.Generator) -> Tensor:
        """The hardest first, however they are picked."""
        first, last = self._window(num)
        if self.pick == "hardest":
            first = last - number
        elif self.pick == "easiest":
            last = first + number
        within = torch.arange(first, last)
        if self.pick == "random":
            within = within[torch.randperm(len(within), generator=rng)[:number]]
        return within.sort(descending=True).values


CHOICES = Family("choice of real images", {"random": AtRandom, "difficulty": ByDifficulty})


@dataclass(frozen=True)
class Frozen:
    """How many images of each class are real and stay so, and which; by default none."""

    share: float = setting("of the images of each class that are real and never change", 0.0, below=1)
    images: Choice = choice(CHOICES, "which real images of a class they are", AtRandom())
    rest: Literal["method", "chosen"] = setting(
        "what the other images start from: what method.start says, or real images that are chosen together with the "
        "frozen ones, which then are the hardest of them",
        "method",
    )

    def __post_init__(self) -> None:
        require(
            self.active or self.images == AtRandom(),
            "images",
            "chooses real images, and none are asked for",
            "a share above 0, or rest: chosen",
        )

    @property
    def active(self) -> bool:
        """Whether any row starts from what it chooses."""
        return self.share > 0 or self.rest == "chosen"

    def per_class(self, images_per_class: int) -> int:
        """Frozen rows of each class, its first ones."""
        return int(self.share * images_per_class + 0.5)

    def taken(self, images_per_class: int) -> int:
        """Rows of each class, its first ones, that start from a chosen image."""
        return images_per_class if self.rest == "chosen" else self.per_class(images_per_class)


def first_of_class(number: int, images_per_class: int, num_classes: int) -> Tensor:
    """Which rows (n,) of a set are among the first ``number`` of their class; rows lie class by class."""
    return (torch.arange(images_per_class) < number).repeat(num_classes)
