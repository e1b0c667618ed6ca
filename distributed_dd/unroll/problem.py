"""What an unroll is asked, and what it answers.

Legend: P parameters, N student steps, n synthetic images, B batch, K classes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from distributed_dd.learning.augment import Drawn
from distributed_dd.unroll.ends import Ends
from distributed_dd.unroll.rows import RowGradients, Rows
from distributed_dd.unroll.stored import OnDevice, Stored
from distributed_dd.unroll.student_rules import Moment, PlainSGD, StudentRule, packed

Gradient = Callable[..., Tensor]
"""From theta (P,) and the tensors of a batch to the gradient (P,) of the student's loss."""


def alone(part_P: Tensor) -> Tensor:
    """The sum over ranks where there is only one: the part itself."""
    return part_P


def unweighted(loss: Tensor) -> float:
    """The factor 1: every loss counts."""
    return 1.0


class Learns(Protocol):
    """What an unroll needs of a student: its loss on a batch, a scalar, whose first tensor was augmented."""

    def loss(self, theta_P: Tensor, *batch: Tensor) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Train a student for N steps, and differentiate what its end is worth.

    theta_{t+1} = rule(theta_t, grad loss(theta_t; A_t(images[batch_t]), labels[batch_t]), rate_t);
    L = the sum of the losses that ``ends`` chooses among those of theta_1 .. theta_N.

    Several ranks may share it: each has its part of every batch in ``rows``, ``shares`` says what fraction
    of the batch that is, and ``reduce`` sums a vector over them.

    Attributes:
        rows: where student steps read images and labels, and where their gradients go.
        learning_rate: one for all steps (), or one for each (N,).
        augment: per student step, for the rows of this rank.
        start_slots: what the rule kept before the first step; None: zeros, and the first step is its first update.
        updates_before: how many updates made ``start_slots``.
        first_back: steps before it are made but not differentiated: what they led to counts as a constant.
        of_start: the gradient by theta_0 is wanted too.
        shares: rows of this rank / rows of the batch, per student step; None: all rows are here.
        reduce: sum of a vector over the ranks that share this problem.
        stored: where what the reverse sweep needs of each step waits for it.
        weigh: given the loss, the factor of its gradient: 0 where the gate is closed.
        in_step: other ranks wait for this one's rows also in the reverse sweep, so it runs even where the loss
            does not count.
    """

    student: Any
    theta_start_P: Tensor
    ends: Ends
    rows: Rows
    learning_rate: Tensor
    augment: Sequence[Drawn]
    rule: StudentRule = PlainSGD()
    start_slots: tuple[Tensor, ...] | None = None
    updates_before: int = 0
    first_back: int = 0
    of_start: bool = False
    shares: Sequence[float] | None = None
    reduce: Callable[[Tensor], Tensor] = alone
    stored: Callable[[], Stored] = OnDevice
    weigh: Callable[[Tensor], float] = field(default=unweighted)
    in_step: bool = False

    @property
    def num_steps(self) -> int:
        """N, the student steps."""
        return len(self.augment)

    def rate(self, step: int) -> Tensor:
        """The learning rate () of a step."""
        rate = self.learning_rate.detach()
        return rate if rate.ndim == 0 else rate[step]

    def update_number(self, step: int) -> int:
        """Which update of its rule a step is, counted from 1."""
        return self.updates_before + step + 1

    def start(self) -> Moment:
        """The student before the first step."""
        theta_P = self.theta_start_P.detach()
        slots = self.start_slots
        if slots is None:
            slots = tuple(torch.zeros_like(theta_P) for _ in range(self.rule.num_slots))
        return Moment(theta_P, tuple(slot.detach() for slot in slots))

    def share(self, step: int, value: Tensor) -> Tensor:
        """This rank's part of a mean over the whole batch, from the mean over its own rows."""
        return value if self.shares is None else self.shares[step] * value

    def steps_back(self, weight: float) -> Iterable[int]:
        """The student steps of the reverse sweep: none for a loss that does not count."""
        return reversed(range(self.first_back, self.num_steps)) if weight or self.in_step else ()

    def forward(self, gradient: Gradient) -> "Trained":
        """The N student steps, without a graph."""
        stored, moment, follower = self.stored(), self.start(), self.ends.follow()
        with torch.no_grad():
            for step in range(self.num_steps):
                images, *others = self.rows.read(step, min(step + 1, self.num_steps - 1))
                if step >= self.first_back and self.rule.num_kept == 1:
                    stored.push(moment.theta_P)
                g = self.reduce(self.share(step, gradient(moment.theta_P, self.augment[step](images), *others)))
                if step >= self.first_back and self.rule.num_kept > 1:
                    stored.push(packed([moment.theta_P, *moment.slots, g]))
                moment = self.rule.update(moment, g, self.rate(step), self.update_number(step))
                follower.see(step + 1, moment.theta_P)
        loss, slopes = None, {}
        for look in follower.looks():
            worth, slope_P = look.end.slope(look.theta_P)
            if look.end.parted:
                worth, slope_P = self.reduce(worth), self.reduce(slope_P)
            loss = worth if loss is None else loss + worth
            slopes[look.step] = slope_P
        assert loss is not None  # some end counts
        return Trained(stored, moment, loss, slopes)


@dataclass(frozen=True)
class Trained:
    """A student after its steps.

    Attributes:
        stored: what the way back needs of each differentiated step, the last one on top.
        end: the student after the last step.
        loss: (), the sum of end losses.
        slopes: after how many steps an end loss was taken, and its gradient (P,).
    """

    stored: Stored
    end: Moment
    loss: Tensor
    slopes: dict[int, Tensor]


@dataclass(frozen=True)
class UnrolledGradient:
    """The loss of a student's end and its gradients.

    Alone, each is shaped like the input it belongs to. Where ranks share a problem, ``loss`` is whole on
    every rank; the gradients are parts, whose sum over the ranks is the gradient.

    Attributes:
        loss: (), the loss.
        rows: gradients by the tensors of the set.
        learning_rate: shaped as it was put in.
        end: the student after its last step.
        theta_start: (P,), where it was asked for.
    """

    loss: Tensor
    rows: RowGradients
    learning_rate: Tensor
    end: Moment
    theta_start: Tensor | None = None

    @property
    def images(self) -> Tensor:
        """By the first tensor of the set, (n, ..)."""
        return self.rows.images

    @property
    def labels(self) -> Tensor:
        """By the second, (n, K)."""
        return self.rows.labels

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """By each tensor of the set; None for whole numbers."""
        return self.rows.tensors

    def is_finite(self) -> bool:
        """Whether every number in it is finite."""
        parts = [self.loss, self.learning_rate, *(part for part in self.tensors if part is not None)]
        return all(bool(torch.isfinite(part).all()) for part in parts)


class Unroll(Protocol):
    """A way of differentiating; ``exact`` says whether the gradient is that of the loss.

    ``shardable``: whether ranks can share a problem.
    """

    exact: ClassVar[bool]
    shardable: ClassVar[bool]

    def __call__(self, problem: Problem) -> UnrolledGradient: ...
