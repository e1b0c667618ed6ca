"""The labels of the set: the classes, or logits that are learned."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from distributed_dd.family import Family, choice, setting
from distributed_dd.learning.classes import hard_logits
from distributed_dd.learning.update_rules import UPDATE_RULES, Adam, UpdateRule


class Labels(Protocol):
    """Label logits before the first outer step, and how they are learned."""

    @property
    def rule(self) -> UpdateRule | None:
        """Their optimiser; None: they stay."""
        ...

    def start(self, classes_n: Tensor, num_classes: int) -> Tensor:
        """Logits (n, K)."""
        ...


@dataclass(frozen=True)
class Hard:
    """The class itself."""

    @property
    def rule(self) -> None:
        """They stay."""
        return None

    def start(self, classes_n: Tensor, num_classes: int) -> Tensor:
        """Logits whose softmax is one-hot."""
        return hard_logits(classes_n, num_classes)


@dataclass(frozen=True)
class Learned:
    """Logits that follow their gradient; they begin as smoothed classes, since one-hot ones have no slope."""

    optimizer: UpdateRule = choice(UPDATE_RULES, "optimiser of the label logits", Adam(0.01))
    smoothing: float = setting("probability that is spread over all classes at the start", 0.1, above=0, below=1)

    @property
    def rule(self) -> UpdateRule:
        """The optimiser."""
        return self.optimizer

    def start(self, classes_n: Tensor, num_classes: int) -> Tensor:
        """Logarithms of the smoothed classes, shifted so that the other classes have 0."""
        other = self.smoothing / num_classes
        own = math.log((1 - self.smoothing + other) / other)
        return one_hot(classes_n, num_classes).to(torch.float32) * own


LABELS: Family = Family("labels of a bilevel set", {"hard": Hard, "learned": Learned})
