"""Optimisers of the supervised loop, on one flat vector of parameters: SGD, GSAM, Adam, AdamW.

Rules that treat a layer's weights as a matrix, such as Muon, have no place here: one vector has no matrices.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from distributed_dd.family import Family, setting

Gradient = Callable[[Tensor], Tensor]


class Optimizer(Protocol):
    """An update rule. What it keeps is the caller's, one vector that can be saved beside the parameters."""

    @property
    def learning_rate(self) -> float: ...

    @property
    def passes(self) -> int:
        """Gradients taken per update."""
        ...

    def start(self, theta_P: Tensor) -> Tensor:
        """What it keeps before the first step, such as momentum (P,), as one vector."""
        ...

    def update(self, theta_P: Tensor, velocity_P: Tensor, gradient: Gradient) -> tuple[Tensor, Tensor]:
        """Parameters and what is kept after one step; every call of ``gradient`` is for the same batch.

        Neither vector is written to.
        """
        ...


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent."""

    learning_rate: float = setting("step size", 0.01, above=0)
    momentum: float = setting("momentum", 0.0, at_least=0, below=1)
    weight_decay: float = setting("L2 penalty", 0.0)

    @property
    def passes(self) -> int:
        return 1

    def start(self, theta_P: Tensor) -> Tensor:
        """Momentum (P,), zero."""
        return torch.zeros_like(theta_P)

    def update(self, theta_P: Tensor, velocity_P: Tensor, gradient: Gradient) -> tuple[Tensor, Tensor]:
        """v <- mu v + g + lambda theta;  theta <- theta - alpha v."""
        return self.descend(theta_P, velocity_P, gradient(theta_P))

    def descend(self, theta_P: Tensor, velocity_P: Tensor, gradient_P: Tensor) -> tuple[Tensor, Tensor]:
        """The step along a gradient that was computed before."""
        if self.weight_decay:
            gradient_P = gradient_P.add(theta_P, alpha=self.weight_decay)
        velocity_P = velocity_P.mul(self.momentum).add_(gradient_P) if self.momentum else gradient_P
        return theta_P.add(velocity_P, alpha=-self.learning_rate), velocity_P


@dataclass(frozen=True, kw_only=True)
class GSAM:
    """Sharpness-aware SGD with surrogate gap (Zhuang et al., ICLR 2022).

    Two passes on the same augmented batch: g at w, g' at the ascent point; then a step along
    g' - alpha v, with v the part of g orthogonal to g'.
    """

    learning_rate: float = setting("step size", 0.01, above=0)
    momentum: float = setting("momentum of the base SGD", 0.0, at_least=0, below=1)
    weight_decay: float = setting("L2 penalty of the base SGD", 0.0)
    rho: float = setting("radius of the ascent step", 0.01)
    alpha: float = setting("weight of the orthogonal part of the gradient", 0.3)
    adaptive: bool = setting("scale the ascent by the parameters (ASAM)", True)

    @property
    def passes(self) -> int:
        return 2

    def start(self, theta_P: Tensor) -> Tensor:
        """Momentum (P,), zero."""
        return torch.zeros_like(theta_P)

    def update(self, theta_P: Tensor, velocity_P: Tensor, gradient: Gradient) -> tuple[Tensor, Tensor]:
        """One step of the base SGD along the surrogate gradient."""
        first_P = gradient(theta_P)
        second_P = gradient(theta_P + self._ascent(theta_P, first_P))
        base = SGD(self.learning_rate, self.momentum, self.weight_decay)
        return base.descend(theta_P, velocity_P, self._combine(first_P, second_P))

    def _ascent(self, theta_P: Tensor, gradient_P: Tensor) -> Tensor:
        if not self.adaptive:
            return self.rho / (_norm(gradient_P) + 1e-12) * gradient_P
        scale = self.rho / (_norm(theta_P.abs() * gradient_P) + 1e-12)
        return scale * theta_P.square() * gradient_P

    def _combine(self, first_P: Tensor, second_P: Tensor) -> Tensor:
        norm_first, norm_second = _norm(first_P), _norm(second_P)
        cosine = (first_P * second_P).sum() / (norm_first * norm_second + 1e-12)
        along = cosine * norm_first / (norm_second + 1e-12)
        return second_P - self.alpha * (first_P - along * second_P)


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Steps of one size along the mean gradient over the root of its mean square (ICLR 2015), torch's."""

    rule: ClassVar[Any] = torch.optim.Adam

    learning_rate: float = setting("step size", 1e-3, above=0)
    beta1: float = setting("decay of the mean of gradients", 0.9, at_least=0, below=1)
    beta2: float = setting("decay of the mean of their squares", 0.999, at_least=0, below=1)
    epsilon: float = setting("added to the root of the mean square", 1e-8, above=0)
    weight_decay: float = setting("L2 penalty", 0.0)

    @property
    def passes(self) -> int:
        return 1

    def start(self, theta_P: Tensor) -> Tensor:
        """Both means (P,) and the count of steps, in one vector (2P + 1,)."""
        return theta_P.new_zeros(2 * len(theta_P) + 1)

    def update(self, theta_P: Tensor, velocity_P: Tensor, gradient: Gradient) -> tuple[Tensor, Tensor]:
        """One step of torch's rule on copies."""
        parameter, kept = theta_P.clone(), velocity_P.clone()
        parameter.grad = gradient(theta_P)
        num = len(theta_P)
        betas = (self.beta1, self.beta2)
        rule = self.rule([parameter], self.learning_rate, betas, self.epsilon, self.weight_decay)
        # Views: torch changes them in place, and with them the vector.
        rule.state[parameter] = {"exp_avg": kept[:num], "exp_avg_sq": kept[num:-1], "step": kept[-1]}
        rule.step()
        parameter.grad = None
        return parameter, kept


@dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """Adam with weight decay apart from the gradient (ICLR 2019), torch's."""

    rule: ClassVar[Any] = torch.optim.AdamW

    weight_decay: float = setting("share of the parameters that a step takes away, times its size", 0.01)


def _norm(vector_P: Tensor) -> Tensor:
    return vector_P.square().sum().sqrt()


OPTIMIZERS = Family("optimizer", {"sgd": SGD, "gsam": GSAM, "adam": Adam, "adamw": AdamW})
