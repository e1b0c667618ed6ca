"""Losses of the supervised loop, beside cross-entropy.

Labels are class numbers (B,), or logits (B, K) whose softmax are the probabilities of the classes. A squared error
also takes targets (B, K), which a regression learned, as they are.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, one_hot

from distributed_dd.family import Family, setting
from distributed_dd.learning.flat import soft_cross_entropy


class Criterion(Protocol):
    """A loss."""

    def loss(self, logits_BK: Tensor, labels: Tensor) -> Tensor:
        """Its mean over a batch."""
        ...


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy with the classes, or with the probabilities that soft labels give them."""

    def loss(self, logits_BK: Tensor, labels: Tensor) -> Tensor:
        """-sum_k p_k log softmax(logits)_k, mean over the batch."""
        return soft_cross_entropy(logits_BK, labels) if labels.ndim == 2 else cross_entropy(logits_BK, labels)


@dataclass(frozen=True)
class SquaredError:
    """Half the squared distance to the centred probabilities p - 1/K (KIP, FrePo)."""

    over_classes: Literal["sum", "mean"] = setting("FrePo sums over classes, KIP takes the mean", "sum")

    def loss(self, logits_BK: Tensor, labels: Tensor) -> Tensor:
        """1/2 sum_k or mean_k (logits_k - p_k + 1/K)^2, mean over the batch."""
        num_classes = logits_BK.shape[1]
        probabilities_BK = labels.softmax(1) if labels.ndim == 2 else one_hot(labels, num_classes).to(logits_BK.dtype)
        return self.from_targets(logits_BK, probabilities_BK - 1 / num_classes)

    def from_targets(self, outputs_BK: Tensor, targets_BK: Tensor) -> Tensor:
        """1/2 sum_k or mean_k (outputs_k - targets_k)^2, mean over the batch."""
        squares_BK = (outputs_BK - targets_BK).square()
        return 0.5 * (squares_BK.sum(1) if self.over_classes == "sum" else squares_BK.mean(1)).mean()


@dataclass(frozen=True)
class Distillation:
    """Divergence from a teacher's probabilities at a temperature (Hinton et al. 2015)."""

    temperature: float = setting("divides the logits of both", 20.0, above=0)

    def loss(self, logits_BK: Tensor, labels: Tensor) -> Tensor:
        """T^2 KL(softmax(labels / T) || softmax(logits / T)), mean over the batch; cross-entropy with class numbers."""
        if labels.ndim == 1:
            return cross_entropy(logits_BK, labels)
        target_BK = log_softmax(labels / self.temperature, 1)
        own_BK = log_softmax(logits_BK / self.temperature, 1)
        return self.temperature**2 * (target_BK.exp() * (target_BK - own_BK)).sum(1).mean()


CRITERIA = Family(
    "criterion", {"cross_entropy": CrossEntropy, "squared_error": SquaredError, "distillation": Distillation}
)
