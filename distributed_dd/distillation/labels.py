"""The labels a synthetic set starts from, as logits."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from distributed_dd.family import Family, setting

HARD_LOGIT = 100.0


class Labels(Protocol):
    """Makes starting label logits; ``learned`` says whether distillation changes them."""

    @property
    def learned(self) -> bool: ...

    def start(self, targets_n: Tensor, num_classes: int, expert_logits: Iterable[Tensor]) -> Tensor: ...


@dataclass(frozen=True)
class ExpertEnsemble:
    """Logits averaged over the experts that classify the image correctly (`methods.md` 1.6).

    An image that no expert gets right takes the average over all of them.
    """

    learned: bool = setting("optimise the label logits too", True)
    epoch: int = setting("expert checkpoint that labels; -1 is the last", -1)

    def start(self, targets_n: Tensor, num_classes: int, expert_logits: Iterable[Tensor]) -> Tensor:
        """Logits (n, K) from every expert's logits (n, K)."""
        total = torch.zeros(len(targets_n), num_classes, dtype=torch.float64)
        everyone, right_count, count = total.clone(), torch.zeros(len(targets_n), 1), 0
        for logits in expert_logits:
            right = (logits.argmax(1) == targets_n).unsqueeze(1)
            total += logits.double() * right
            everyone += logits.double()
            right_count += right
            count += 1
        average = torch.where(right_count > 0, total / right_count.clamp_min(1), everyone / max(count, 1))
        return average.float()


@dataclass(frozen=True)
class Hard:
    """The class itself, fixed (MTT, FTD)."""

    learned: bool = setting("optimise the label logits too", False)

    def start(self, targets_n: Tensor, num_classes: int, expert_logits: Iterable[Tensor]) -> Tensor:
        """Logits (n, K) whose softmax is the one-hot label."""
        return hard_logits(targets_n, num_classes)


def hard_logits(targets_n: Tensor, num_classes: int) -> Tensor:
    """Logits whose softmax is one-hot to float32 precision: exp(-100) is 4e-44."""
    return one_hot(targets_n, num_classes).float() * HARD_LOGIT


LABELS = Family("labels", {"expert_ensemble": ExpertEnsemble, "hard": Hard})
