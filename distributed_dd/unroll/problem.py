"""What an unroll is asked, and what it answers.

Legend: P parameters, N student steps, n synthetic images, B batch, K classes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from distributed_dd.learning.augment import Drawn
from distributed_dd.learning.flat import Student
from distributed_dd.unroll.rows import Rows
from distributed_dd.unroll.stored import OnDevice, Stored


def alone(part_P: Tensor) -> Tensor:
    """The sum over ranks where there is only one: the part itself."""
    return part_P


def unweighted(loss: Tensor) -> float:
    """The factor 1: every loss counts."""
    return 1.0


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One segment: train a student for N steps, compare its end with the target.

    theta_{t+1} = theta_t - lr grad loss(theta_t; A_t(images[batch_t]), labels[batch_t]);
    L = |theta_N - target|^2 / |theta_0 - target|^2.

    Several ranks may share it: each has its part of every batch in ``rows``, ``shares`` says what fraction
    of the batch that is, and ``reduce`` sums a vector over them.

    Attributes:
        rows: where student steps read images and labels, and where their gradients go.
        augment: per student step, for the rows of this rank.
        shares: rows of this rank / rows of the batch, per student step; None: all rows are here.
        reduce: sum of a vector over the ranks that share this problem.
        stored: where theta_0 .. theta_{N-1} wait for the reverse sweep.
        weigh: given the loss, the factor of its gradient: 0 where the gate is closed.
        in_step: other ranks wait for this one's rows also in the reverse sweep, so it runs even where the loss
            does not count.
    """

    student: Student
    theta_start_P: Tensor
    theta_target_P: Tensor
    rows: Rows
    learning_rate: Tensor
    augment: Sequence[Drawn]
    shares: Sequence[float] | None = None
    reduce: Callable[[Tensor], Tensor] = alone
    stored: Callable[[], Stored] = OnDevice
    weigh: Callable[[Tensor], float] = field(default=unweighted)
    in_step: bool = False

    @property
    def num_steps(self) -> int:
        """N, the student steps."""
        return len(self.augment)

    def scale(self) -> Tensor:
        """The normaliser |theta_0 - target|^2."""
        return (self.theta_start_P - self.theta_target_P).square().sum()

    def share(self, step: int, value: Tensor) -> Tensor:
        """This rank's part of a mean over the whole batch, from the mean over its own rows."""
        return value if self.shares is None else self.shares[step] * value

    def steps_back(self, weight: float) -> Iterable[int]:
        """The student steps of the reverse sweep: none for a loss that does not count."""
        return reversed(range(self.num_steps)) if weight or self.in_step else ()

    def forward(self, gradient: Callable[[Tensor, Tensor, Tensor], Tensor]) -> tuple[Stored, Tensor]:
        """The N student steps: theta_0 .. theta_{N-1}, stored, and theta_N."""
        stored, rate = self.stored(), self.learning_rate.detach()
        theta = self.theta_start_P.detach()
        with torch.no_grad():
            for step in range(self.num_steps):
                images, labels = self.rows.read(step, min(step + 1, self.num_steps - 1))
                stored.push(theta)
                g = gradient(theta, self.augment[step](images), labels)
                theta = theta - rate * self.reduce(self.share(step, g))
        return stored, theta


@dataclass(frozen=True)
class MatchingGradient:
    """The matching loss and its gradients.

    Alone, each is shaped like the input it belongs to. Where ranks share a problem, ``loss`` is whole on
    every rank; the gradients are parts, whose sum over the ranks is the gradient.
    """

    loss: Tensor
    images: Tensor
    labels: Tensor
    learning_rate: Tensor

    def is_finite(self) -> bool:
        """Whether every number in it is finite."""
        parts = (self.loss, self.images, self.labels, self.learning_rate)
        return all(bool(torch.isfinite(part).all()) for part in parts)


def squared_norm(tensor: Tensor) -> Tensor:
    """Sum of squares in float64, without a float64 copy of the tensor."""
    return torch.linalg.vector_norm(tensor, dtype=torch.float64).square()


class Unroll(Protocol):
    """A way of differentiating; ``exact`` says whether the gradient is that of the loss.

    ``shardable``: whether ranks can share a problem.
    """

    exact: ClassVar[bool]
    shardable: ClassVar[bool]

    def __call__(self, problem: Problem) -> MatchingGradient: ...
