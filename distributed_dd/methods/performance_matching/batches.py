"""On which rows of the set each student step trains."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from distributed_dd.family import Family, require, setting
from distributed_dd.learning.batches import student_batches


class Batches(Protocol):
    """Rows of every student step."""

    def draw(self, classes_n: Tensor, num_steps: int, rng: torch.Generator) -> tuple[Tensor, ...]:
        """Indices (B,) for each of ``num_steps`` steps; ``classes_n`` are those of the set, class by class."""
        ...

    def smallest(self, num_images: int, num_classes: int) -> int:
        """Rows of the smallest batch."""
        ...

    def check(self, images_per_class: int) -> None:
        """Refuse what a set of so many images of each class cannot give."""
        ...


@dataclass(frozen=True)
class Shuffled:
    """By passes through the set in random order."""

    size: int = setting("rows of a student step (all, if there are fewer)", 1000, at_least=1)

    def draw(self, classes_n: Tensor, num_steps: int, rng: torch.Generator) -> tuple[Tensor, ...]:
        """What is left at the end of a pass is a batch too."""
        return student_batches(len(classes_n), self.size, num_steps, rng)

    def smallest(self, num_images: int, num_classes: int) -> int:
        """What is left at the end of a pass."""
        size = min(self.size, num_images)
        return num_images % size or size

    def check(self, images_per_class: int) -> None:
        """Any set will do."""


@dataclass(frozen=True)
class Blocks:
    """Fixed blocks in fixed order, as many images of each class in each (Wang et al., 2018).

    Images of a block are those of equal numbers within their classes; block after block, then the first again.
    """

    per_class: int = setting("images of each class in a block", 1, at_least=1)

    def draw(self, classes_n: Tensor, num_steps: int, rng: torch.Generator) -> tuple[Tensor, ...]:
        """Nothing random."""
        own = [(classes_n == number).nonzero().flatten() for number in range(int(classes_n.max()) + 1)]
        num_blocks = len(own[0]) // self.per_class
        places = [
            torch.cat([rows[block * self.per_class : (block + 1) * self.per_class] for rows in own])
            for block in range(num_blocks)
        ]
        return tuple(places[step % num_blocks] for step in range(num_steps))

    def smallest(self, num_images: int, num_classes: int) -> int:
        """All are equal."""
        return num_classes * self.per_class

    def check(self, images_per_class: int) -> None:
        """Blocks that cover the set.

        Raises:
            ConfigError: some images would be in no block.
        """
        require(
            images_per_class % self.per_class == 0,
            "method.batches.per_class",
            f"{self.per_class} does not divide the {images_per_class} images of a class: some would be in no block",
            f"a divisor of {images_per_class}",
        )


BATCHES: Family = Family("student batches", {"shuffled": Shuffled, "blocks": Blocks})
