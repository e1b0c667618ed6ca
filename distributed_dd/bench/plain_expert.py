"""Expert training as the field writes it: a loader, module parameters, torch's SGD; nothing compiled."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

Closure = Callable[[], Tensor]


class Update(Protocol):
    """One step of a network's parameters; the closure puts a batch's gradient into them."""

    def step(self, closure: Closure) -> Tensor: ...


class PlainSGD:
    """torch.optim.SGD."""

    def __init__(self, base: torch.optim.SGD) -> None:
        self.base = base

    def step(self, closure: Closure) -> Tensor:
        """The loss, after a step along its gradient."""
        loss = closure()
        self.base.step()
        return loss


class PlainGSAM:
    """Surrogate-gap sharpness-aware steps (Zhuang et al., ICLR 2022), parameter by parameter.

    g is the gradient at w. The ascent point is w + rho w^2 g / || |w| g || where ``adaptive``, else
    w + rho g / ||g||; g' is the gradient there. ``base`` steps from w along g' - alpha v, where
    v = g - <g, g'> / ||g'||^2 g' is the part of g orthogonal to g'.
    """

    def __init__(self, base: torch.optim.SGD, rho: float, alpha: float, adaptive: bool) -> None:
        self.base, self.rho, self.alpha, self.adaptive = base, rho, alpha, adaptive
        self.parameters: list[Tensor] = [p for group in base.param_groups for p in group["params"]]

    def step(self, closure: Closure) -> Tensor:
        """The loss at w, after the step."""
        loss = closure()
        before = [p.detach().clone() for p in self.parameters]
        first = self._gradients()
        self._ascend(first)
        closure()
        with torch.no_grad():
            for p, value in zip(self.parameters, before, strict=True):
                p.copy_(value)
            self._combine(first, self._gradients())
        self.base.step()
        return loss

    def _gradients(self) -> list[Tensor]:
        gradients = [p.grad for p in self.parameters]
        return [g.detach().clone() for g in gradients if g is not None]

    @torch.no_grad()
    def _ascend(self, first: list[Tensor]) -> None:
        weights = [p.abs() if self.adaptive else torch.ones_like(p) for p in self.parameters]
        length = _total([(w * g).square().sum() for w, g in zip(weights, first, strict=True)]).sqrt()
        for p, w, g in zip(self.parameters, weights, first, strict=True):
            p.add_(w.square() * g * (self.rho / (length + 1e-12)))

    def _combine(self, first: list[Tensor], second: list[Tensor]) -> None:
        inner = _total([(a * b).sum() for a, b in zip(first, second, strict=True)])
        along = inner / (_total([b.square().sum() for b in second]) + 1e-12)
        for p, a, b in zip(self.parameters, first, second, strict=True):
            p.grad = b - self.alpha * (a - along * b)


def _total(values: list[Tensor]) -> Tensor:
    return torch.stack(values).sum()


class PlainExpert:
    """A network in training; an epoch ends with its accuracy on held-out images.

    Args:
        train, held_out: images and class numbers, on the CPU; batches are moved to the network's device.
        augment: applied to every batch where it is.
    """

    def __init__(
        self,
        network: nn.Module,
        update: Update,
        train: TensorDataset,
        held_out: TensorDataset,
        batch_size: int,
        augment: Callable[[Tensor], Tensor],
    ) -> None:
        self.network, self.update, self.augment = network, update, augment
        self.criterion = nn.CrossEntropyLoss()
        self.train_loader = DataLoader(train, batch_size=batch_size, shuffle=True, num_workers=0)
        self.test_loader = DataLoader(held_out, batch_size=batch_size, shuffle=False, num_workers=0)
        self.device = next(network.parameters()).device

    def epoch(self) -> float:
        """One pass over the training images, then `accuracy`; the mean loss, read back batch by batch."""
        self.network.train()
        total = count = 0.0
        for images, labels in self.train_loader:
            images, labels = images.to(self.device), labels.to(self.device)
            total += self.step(self.augment(images), labels).item() * len(labels)
            count += len(labels)
        self.accuracy()
        return total / count

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of one batch, after the step."""

        def closure() -> Tensor:
            self.network.zero_grad()
            loss = self.criterion(self.network(images), labels)
            loss.backward()
            return loss.detach()

        return self.update.step(closure)

    @torch.no_grad()
    def accuracy(self) -> float:
        """Share of held-out images that are classified correctly, in [0, 1]."""
        self.network.eval()
        correct = count = 0
        for images, labels in self.test_loader:
            images, labels = images.to(self.device), labels.to(self.device)
            correct += int((self.network(images).argmax(1) == labels).sum())
            count += len(labels)
        return correct / count
