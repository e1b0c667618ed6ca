"""The labels a synthetic set starts from, as logits."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from distributed_dd.family import Family, setting
from distributed_dd.learning.classes import hard_logits

Classifier = Callable[[], Tensor]
"""Label logits (n, K) of the synthetic images by the network at the target parameters."""


class Labels(Protocol):
    """Makes starting label logits; ``learned`` says whether distillation changes them.

    `renewed` may replace all labels before an outer step; None leaves them.
    """

    @property
    def learned(self) -> bool: ...

    def start(self, targets_n: Tensor, num_classes: int, expert_logits: Iterable[Tensor]) -> Tensor: ...

    def renewed(self, target_logits: Classifier) -> Tensor | None: ...


@dataclass(frozen=True)
class ExpertEnsemble:
    """Logits averaged over the experts that classify the image correctly (DATM, ICLR 2024).

    An image that no expert gets right takes the average over all of them.
    """

    learned: bool = setting("optimise the label logits too", True)
    epoch: int = setting("expert checkpoint that labels; -1 is the last", -1, at_least=-1_000_000, at_most=1_000_000)
    num_experts: int | None = setting("experts that are asked (null: all)", None, at_least=1)

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

    def renewed(self, target_logits: Classifier) -> Tensor | None:
        """Never: they are learned, or stay."""
        return None


@dataclass(frozen=True)
class Hard:
    """The class itself, fixed (MTT, FTD)."""

    learned: bool = setting("optimise the label logits too", False)

    def start(self, targets_n: Tensor, num_classes: int, expert_logits: Iterable[Tensor]) -> Tensor:
        """Logits (n, K) whose softmax is the one-hot label."""
        return hard_logits(targets_n, num_classes)

    def renewed(self, target_logits: Classifier) -> Tensor | None:
        """Never."""
        return None


@dataclass(frozen=True)
class TargetNetwork:
    """Logits of the network at the target parameters, anew in every outer step (TESLA on ImageNet)."""

    learned: bool = setting("optimise the label logits too", False)

    def start(self, targets_n: Tensor, num_classes: int, expert_logits: Iterable[Tensor]) -> Tensor:
        """The class itself, until the first outer step."""
        return hard_logits(targets_n, num_classes)

    def renewed(self, target_logits: Classifier) -> Tensor | None:
        """What the target network says of the synthetic images."""
        return target_logits()


LABELS = Family("labels", {"expert_ensemble": ExpertEnsemble, "hard": Hard, "target_network": TargetNetwork})
