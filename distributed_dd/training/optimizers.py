"""Optimisers of the supervised loop: SGD, and gap-guided sharpness-aware minimisation."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from distributed_dd.family import Family, require, setting

Closure = Callable[[], Tensor]
Step = Callable[[Closure], None]


class Optimizer(Protocol):
    """A recipe for updates; `start` binds it to parameters."""

    @property
    def learning_rate(self) -> float: ...

    def start(self, parameters: Iterable[torch.nn.Parameter]) -> Step: ...


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent."""

    learning_rate: float = setting("step size", 0.01)
    momentum: float = setting("momentum", 0.0)
    weight_decay: float = setting("L2 penalty", 0.0)

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, "learning_rate", f"got {self.learning_rate}", "above 0")

    def start(self, parameters: Iterable[torch.nn.Parameter]) -> Step:
        """A function that takes a closure returning the loss and makes one update."""
        base = torch.optim.SGD(
            list(parameters), self.learning_rate, self.momentum, weight_decay=self.weight_decay
        )

        def step(closure: Closure) -> None:
            base.zero_grad()
            closure().backward()
            base.step()

        return step


@dataclass(frozen=True)
class GSAM:
    """Sharpness-aware SGD with surrogate gap (Zhuang et al., ICLR 2022).

    Two passes on the same augmented batch: g at w, g' at the ascent point; then a step along
    g' - alpha v, with v the part of g orthogonal to g'.
    """

    learning_rate: float = setting("step size", 0.01)
    momentum: float = setting("momentum of the base SGD", 0.0)
    weight_decay: float = setting("L2 penalty of the base SGD", 0.0)
    rho: float = setting("radius of the ascent step", 0.01)
    alpha: float = setting("weight of the orthogonal part of the gradient", 0.3)
    adaptive: bool = setting("scale the ascent by the parameters (ASAM)", True)

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, "learning_rate", f"got {self.learning_rate}", "above 0")
        require(self.rho >= 0, "rho", f"got {self.rho}", "0 or more")

    def start(self, parameters: Iterable[torch.nn.Parameter]) -> Step:
        """A function that takes a closure returning the loss and makes one update."""
        params = list(parameters)
        base = torch.optim.SGD(params, self.learning_rate, self.momentum, weight_decay=self.weight_decay)

        def step(closure: Closure) -> None:
            first = torch.autograd.grad(closure(), params)
            with torch.no_grad():
                ascent = self._ascent(params, first)
                originals = [p.clone() for p in params]
                for parameter, change in zip(params, ascent, strict=True):
                    parameter.add_(change)
            second = torch.autograd.grad(closure(), params)
            with torch.no_grad():
                # Copy back rather than subtract: w + e - e is not w in floating point.
                for parameter, original in zip(params, originals, strict=True):
                    parameter.copy_(original)
                for parameter, gradient in zip(params, self._combine(first, second), strict=True):
                    parameter.grad = gradient
            base.step()

        return step

    def _ascent(self, params: list, gradients: tuple[Tensor, ...]) -> list[Tensor]:
        if not self.adaptive:
            scale = self.rho / (_norm(gradients) + 1e-12)
            return [scale * g for g in gradients]
        norm = _norm([p.abs() * g for p, g in zip(params, gradients, strict=True)])
        scale = self.rho / (norm + 1e-12)
        return [scale * p.square() * g for p, g in zip(params, gradients, strict=True)]

    def _combine(self, first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> list[Tensor]:
        norm_first, norm_second = _norm(first), _norm(second)
        inner = torch.stack([(a * b).sum() for a, b in zip(first, second, strict=True)]).sum()
        cosine = inner / (norm_first * norm_second + 1e-12)
        along = cosine * norm_first / (norm_second + 1e-12)
        return [b - self.alpha * (a - along * b) for a, b in zip(first, second, strict=True)]


def _norm(tensors: Iterable[Tensor]) -> Tensor:
    return torch.stack([t.square().sum() for t in tensors]).sum().sqrt()


OPTIMIZERS = Family("optimizer", {"sgd": SGD, "gsam": GSAM})
