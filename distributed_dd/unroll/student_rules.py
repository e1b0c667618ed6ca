"""How a student follows its gradient: update rules that an unroll can go back through, with what they carry.

Legend: P parameters. A rule keeps slots (P,) beside theta, such as momenta; they are part of what is carried back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from distributed_dd.family import Family, setting


class Moment(NamedTuple):
    """Where a student is: its parameters (P,), and the slots (P,) of its rule."""

    theta_P: Tensor
    slots: tuple[Tensor, ...] = ()


class Back(NamedTuple):
    """An update seen from behind.

    Attributes:
        vector_P, factor: factor * vector is dL/dg, of the gradient g that was followed.
        before: dL/d(theta, slots) as far as it does not go through g.
        rate: dL/d(rate), the whole; None: it is -<g, vector>.
    """

    vector_P: Tensor
    factor: Tensor
    before: Moment
    rate: Tensor | None


class StudentRule(Protocol):
    """An update rule of students.

    Attributes:
        num_slots: vectors that it keeps beside theta.
        num_kept: vectors of one step that the way back needs: theta, slots, and the gradient where it is needed.
    """

    num_slots: ClassVar[int]
    num_kept: ClassVar[int]

    def update(self, moment: Moment, gradient_P: Tensor, rate: Tensor, number: int) -> Moment:
        """The ``number``-th update since the slots were zero, counted from 1; differentiable by all tensors."""
        ...

    def back(self, after: Moment, before: Moment, gradient_P: Tensor | None, rate: Tensor, number: int) -> Back:
        """From dL/d(theta, slots) ``after`` the update, which began at ``before``."""
        ...


class WithSlots:
    """The way back through any rule with slots: the update is differentiated where it was made."""

    def update(self, moment: Moment, gradient_P: Tensor, rate: Tensor, number: int) -> Moment:
        """Of the rule."""
        raise NotImplementedError

    def back(self, after: Moment, before: Moment, gradient_P: Tensor | None, rate: Tensor, number: int) -> Back:
        """Elementwise: costs some vectors of P numbers, and no pass through the network."""
        assert gradient_P is not None
        with torch.enable_grad():
            leaves = [leaf.detach().requires_grad_() for leaf in (*before.slots, gradient_P, rate)]
            *slots, gradient, at = leaves
            # Theta itself enters every rule here as a plain sum, so what belongs to it passes unchanged.
            updated = self.update(Moment(before.theta_P, tuple(slots)), gradient, at, number)
            outputs = (updated.theta_P, *updated.slots)
            *of_slots, of_gradient, of_rate = torch.autograd.grad(outputs, leaves, (after.theta_P, *after.slots))
        return Back(of_gradient, torch.ones_like(rate), Moment(after.theta_P, tuple(of_slots)), of_rate)


@dataclass(frozen=True)
class PlainSGD:
    """theta <- theta - rate g."""

    num_slots: ClassVar[int] = 0
    num_kept: ClassVar[int] = 1

    def update(self, moment: Moment, gradient_P: Tensor, rate: Tensor, number: int) -> Moment:
        """Without slots."""
        return Moment(moment.theta_P - rate * gradient_P)

    def back(self, after: Moment, before: Moment, gradient_P: Tensor | None, rate: Tensor, number: int) -> Back:
        """Linear in g: neither g nor theta is needed."""
        return Back(after.theta_P, -rate, after, None)


@dataclass(frozen=True)
class Momentum(WithSlots):
    """m <- momentum m + g;  theta <- theta - rate m."""

    num_slots: ClassVar[int] = 1
    num_kept: ClassVar[int] = 3

    momentum: float = setting("share of the last step that is kept", 0.9, at_least=0, below=1)

    def update(self, moment: Moment, gradient_P: Tensor, rate: Tensor, number: int) -> Moment:
        """The first update is that of plain SGD."""
        mean = self.momentum * moment.slots[0] + gradient_P
        return Moment(moment.theta_P - rate * mean, (mean,))


@dataclass(frozen=True)
class StudentAdam(WithSlots):
    """Adam (ICLR 2015) with bias-corrected means; what RaT-BPTT's students follow.

    Where no gradient was ever other than 0, the root of the mean square has no slope: it is taken to be 0 there.
    """

    num_slots: ClassVar[int] = 2
    num_kept: ClassVar[int] = 4

    beta1: float = setting("decay of the mean of gradients", 0.9, at_least=0, below=1)
    beta2: float = setting("decay of the mean of their squares", 0.999, at_least=0, below=1)
    epsilon: float = setting("added to the root of the mean square", 1e-8, above=0)

    def update(self, moment: Moment, gradient_P: Tensor, rate: Tensor, number: int) -> Moment:
        """theta <- theta - rate m / (sqrt(v) + epsilon)."""
        mean, square = moment.slots
        mean = self.beta1 * mean + (1 - self.beta1) * gradient_P
        square = self.beta2 * square + (1 - self.beta2) * gradient_P.square()
        corrected = square / (1 - self.beta2**number)
        above = corrected > 0
        root = torch.where(above, corrected, 1.0).sqrt() * above
        step = mean / (1 - self.beta1**number) / (root + self.epsilon)
        return Moment(moment.theta_P - rate * step, (mean, square))


STUDENT_RULES: Family = Family("student rule", {"sgd": PlainSGD, "momentum": Momentum, "adam": StudentAdam})


def packed(parts: Sequence[Tensor]) -> Tensor:
    """Vectors (P,) as one, to wait together."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
