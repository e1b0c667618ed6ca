"""Networks of one architecture as functions of their parameters: features, and what they learn from targets."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distributed_dd.learning.chance import generator
from distributed_dd.learning.criteria import SquaredError
from distributed_dd.learning.device import device
from distributed_dd.learning.flat import flatten
from distributed_dd.learning.networks import Network, initialised
from distributed_dd.learning.networks.blocks import FeatureNetwork, feature_layer
from distributed_dd.outer.world import World

Compiled = Callable[..., Tensor]


@dataclass
class Fitted:
    """Where a network is: parameters (P,), and running statistics (Q,), none without batch norm."""

    theta_P: Tensor
    running_Q: Tensor

    def like(self, other: Tensor) -> "Fitted":
        """This on the device and in the precision of ``other``."""
        return Fitted(*(vector.to(other.device, other.dtype) for vector in (self.theta_P, self.running_Q)))


class Architecture:
    """Layers without parameters of their own.

    Args:
        compiled: whether torch compiles what is asked most; the bits of the results may change.
    """

    def __init__(self, network: Network, world: World, compiled: bool = False) -> None:
        self._member, self._world = network, world
        layers = self._layers(0, "layout")
        self._network = FeatureNetwork(layers, feature_layer(layers))
        self.num_parameters = self._network.num_parameters
        self.num_features = self._seen(flatten(layers), torch.zeros(1, *world.image_shape, device=device())).shape[1]
        self._look: Compiled = torch.compile(self._seen, dynamic=False) if compiled else self._seen
        self._loss: Compiled = torch.compile(self._squared, dynamic=False) if compiled else self._squared

    def fresh(self, *key: str | int) -> Fitted:
        """A network with parameters drawn from ``generator(seed, *key)``."""
        layers = self._layers(self._world.seed, *key)
        return Fitted(flatten(layers), _joined(layers))

    def _layers(self, seed: int, *key: str | int) -> nn.Module:
        world, rng = self._world, generator(seed, *key)
        layers = initialised(self._member, world.image_shape, world.num_classes, rng)
        return layers.to(device()).requires_grad_(False)

    def features(self, at: Fitted, images_BCHW: Tensor) -> Tensor:
        """What goes into the classifier (B, F), as in evaluation; with a graph where images have one."""
        self._enter(at, training=False)
        return self._look(at.theta_P, images_BCHW)

    @torch.enable_grad()
    def gradient(self, at: Fitted, images_BCHW: Tensor, targets_BK: Tensor) -> Tensor:
        """Of the mean over images of half the squared distance of outputs to targets, by the parameters (P,).

        As in training: running statistics in ``at`` follow the batch.
        """
        self._enter(at, training=True)
        leaf = at.theta_P.detach().requires_grad_()
        (gradient_P,) = torch.autograd.grad(self._loss(leaf, images_BCHW, targets_BK), leaf)
        at.running_Q = _joined(self._network.network)
        return gradient_P

    def _enter(self, at: Fitted, training: bool) -> None:
        layers = self._network.network.train(training).to(at.theta_P.device, at.theta_P.dtype)
        kept = _running(layers)
        for (owner, name, old), value in zip(kept, at.running_Q.split([k.numel() for *_, k in kept]), strict=True):
            # Exchanged, not written to: a graph may need those of another network. Training writes to them.
            setattr(owner, name, (value.clone() if training else value).view_as(old))

    def _seen(self, theta_P: Tensor, images_BCHW: Tensor) -> Tensor:
        return self._network.look(theta_P, images_BCHW)[1].flatten(1)

    def _squared(self, theta_P: Tensor, images_BCHW: Tensor, targets_BK: Tensor) -> Tensor:
        return SquaredError("sum").from_targets(self._network.logits(theta_P, images_BCHW), targets_BK)


def _running(layers: nn.Module) -> list[tuple[nn.Module, str, Tensor]]:
    """Running statistics in order: whose, under which name, and what they are."""
    named = ((owner, *pair) for owner in layers.modules() for pair in owner.named_buffers(recurse=False))
    return [(owner, name, buffer) for owner, name, buffer in named if buffer.is_floating_point()]


def _joined(layers: nn.Module) -> Tensor:
    """Running statistics (Q,), a copy."""
    kept = [buffer.reshape(-1) for *_, buffer in _running(layers)]
    return torch.cat(kept).clone() if kept else next(layers.parameters()).new_zeros(0)
