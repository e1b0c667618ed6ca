"""What an unroll is asked, and what it answers.

Legend: P parameters, N student steps, n synthetic images, B batch, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from distributed_dd.distillation.augment import Drawn
from distributed_dd.distillation.student import Student


@dataclass(frozen=True)
class Problem:
    """One outer step: train a student for N steps, compare its end with the target.

    theta_{t+1} = theta_t - lr grad loss(theta_t; A_t(images[batch_t]), labels[batch_t]);
    L = |theta_N - target|^2 / |theta_0 - target|^2.
    """

    student: Student
    theta_start_P: Tensor
    theta_target_P: Tensor
    images_nCHW: Tensor
    labels_nK: Tensor
    learning_rate: Tensor
    batches: Sequence[Tensor]
    augment: Sequence[Drawn]

    def rows(self, step: int) -> tuple[Tensor, Tensor]:
        """The augmented images and the labels that student step ``step`` trains on."""
        batch = self.batches[step]
        return self.augment[step](self.images_nCHW[batch]), self.labels_nK[batch]

    def scale(self) -> Tensor:
        """The normaliser |theta_0 - target|^2."""
        return (self.theta_start_P - self.theta_target_P).square().sum()


@dataclass(frozen=True)
class MatchingGradient:
    """The matching loss and its gradients, each shaped like the input it belongs to."""

    loss: Tensor
    images: Tensor
    labels: Tensor
    learning_rate: Tensor

    def is_finite(self) -> bool:
        """Whether every number in it is finite."""
        parts = (self.loss, self.images, self.labels, self.learning_rate)
        return all(bool(torch.isfinite(part).all()) for part in parts)


class Unroll(Protocol):
    """A way of differentiating; ``exact`` tells whether the gradient is that of the loss."""

    exact: ClassVar[bool]

    def __call__(self, problem: Problem) -> MatchingGradient: ...
