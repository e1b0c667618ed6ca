"""A recipe with all the axes along which published ways of scoring a set differ."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from distributed_dd.family import choice, plain, require, setting
from distributed_dd.learning.criteria import CRITERIA, Criterion, CrossEntropy, SquaredError
from distributed_dd.learning.loop import Recipe
from distributed_dd.learning.mixing import MIXINGS, Mixing, Unmixed
from distributed_dd.learning.schedules import SCHEDULES, Drop, Schedule


@dataclass(frozen=True, kw_only=True)
class PublishedRecipe(Recipe):
    """A recipe with a schedule, a loss, mixing and an average of its own; ``drop`` is not used.

    Attributes:
        num_steps: updates in all, in place of ``num_epochs``: rounded up to whole epochs.
    """

    num_classes: int = setting("classes of the images", 2, at_least=2)
    num_steps: int | None = setting("updates in all (null: num_epochs passes)", None, at_least=1)
    scheduled: Schedule = choice(SCHEDULES, "how the learning rate changes", Drop())
    loss: Criterion = choice(CRITERIA, "what is minimised", CrossEntropy())
    mixing: Mixing = choice(MIXINGS, "images mixed with one another", Unmixed())
    average: float = setting("decay of the mean of parameters that is the result (0: none)", 0.0, at_least=0, below=1)
    shuffled: bool = setting("see the images in a new order in every epoch", True)
    targets: bool = setting("soft labels are targets of a regression as they are, and no logits", False)

    def __post_init__(self) -> None:
        if self.targets:
            require(isinstance(self.loss, SquaredError), "loss", "takes no targets of a regression", "squared_error")
            require(isinstance(self.mixing, Unmixed), "mixing", "mixes labels, but not targets of a regression", "none")

    @property
    def takes_targets(self) -> bool:
        """Whether a set's learned targets can be trained on as they are."""
        return isinstance(self.loss, SquaredError)

    def of_targets(self) -> "PublishedRecipe":
        """For labels that are targets."""
        return replace(self, targets=True)

    def fitted_to(self, num_images: int) -> "PublishedRecipe":
        """As many epochs as the steps take."""
        if self.num_steps is None:
            return self
        return replace(self, num_epochs=math.ceil(self.num_steps / math.ceil(num_images / self.batch_size)))

    def at_most(self, num_epochs: int) -> "PublishedRecipe":
        """In epochs, however it counted."""
        return replace(self, num_epochs=min(self.num_epochs, num_epochs), num_steps=None)

    def of_real_images(self, num_epochs: int) -> "PublishedRecipe":
        """For all real images, whose stored order says nothing."""
        return replace(self, num_epochs=num_epochs, num_steps=None, shuffled=True)

    @property
    def schedule(self) -> Schedule:
        """How the learning rate changes."""
        return self.scheduled

    def order(self, num_images: int, rng: torch.Generator) -> Tensor:
        """Random, or as stored."""
        return super().order(num_images, rng) if self.shuffled else torch.arange(num_images)

    def mixed(self, x_BCHW: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """The batch, mixed."""
        return self.mixing.apply(x_BCHW, y, self.num_classes, rng)

    def criterion(self, soft: bool) -> Callable[[Tensor, Tensor], Tensor]:
        """The loss."""
        if soft and self.targets and isinstance(self.loss, SquaredError):
            return self.loss.from_targets
        return self.loss.loss

    @property
    def loss_key(self) -> Any:
        """The loss's settings."""
        return str([CRITERIA.kind_of(self.loss), plain(self.loss), self.targets])

    @property
    def average_decay(self) -> float:
        """``average``."""
        return self.average
