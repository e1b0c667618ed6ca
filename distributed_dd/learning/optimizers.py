"""Optimisers of the supervised loop, on one flat vector of parameters: SGD and GSAM."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from distributed_dd.family import Family, setting

Gradient = Callable[[Tensor], Tensor]


class Optimizer(Protocol):
    """An update rule. Momentum is the caller's, so that it can be saved beside the parameters."""

    @property
    def learning_rate(self) -> float: ...

    @property
    def passes(self) -> int:
        """Gradients taken per update."""
        ...

    def update(self, theta_P: Tensor, velocity_P: Tensor, gradient: Gradient) -> tuple[Tensor, Tensor]:
        """Parameters and momentum after one step; every call of ``gradient`` is for the same batch."""
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


def _norm(vector_P: Tensor) -> Tensor:
    return vector_P.square().sum().sqrt()


OPTIMIZERS = Family("optimizer", {"sgd": SGD, "gsam": GSAM})
