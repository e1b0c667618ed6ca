"""What CAFE compares of a network: what comes out of every block before it is pooled, and after the last pooling."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from distributed_dd.family import require
from distributed_dd.learning.flat import Student
from distributed_dd.learning.networks.blocks import block_names

POOLING = (nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Identity)
"""Modules at the end of a block, of which that counts which goes in."""
NUM_LAST = 2
"""Times that the output of the last block counts: as it is, and flattened."""


def weights_of(weights: Sequence[float], num_blocks: int) -> tuple[float, ...]:
    """The weight of every layer, from the image on: one for each block, and two for the output of the last.

    Published for three blocks: .1, .1, 1 and 1, 1. Without ``weights`` all blocks but the last have .1, the others 1.

    Raises:
        ConfigError: there are more or fewer weights than layers.
    """
    if not weights:
        return (*(0.1 for _ in range(num_blocks - 1)), 1.0, 1.0, 1.0)
    length = num_blocks + NUM_LAST
    require(
        len(weights) == length,
        "method.weights",
        f"{len(weights)} numbers for a network of {num_blocks} blocks",
        f"{length}: one for each block, from the image on, and {NUM_LAST} for the output of the last one, "
        "or [] for the rule",
    )
    return tuple(weights)


def check_blocks(network: nn.Module) -> None:
    """Refuse a network whose layers are not known.

    Raises:
        ConfigError: it does not say where its blocks end.
    """
    require(
        bool(block_names(network)),
        "network",
        "does not say where its blocks end, whose outputs are compared",
        "a network with blocks, such as convnet",
    )


class LayeredNetwork(Student):
    """A network that also gives the layers that are compared.

    Layers are the outputs of all blocks, from the image on, before they are pooled: where a block ends with pooling,
    what goes into that. Then comes the pooled output of the last block, once.

    Attributes:
        sizes_of_layers: numbers of one image in each.

    Raises:
        ConfigError: the network does not say where its blocks end, or is no function of its parameters alone.
    """

    def __init__(self, network: nn.Module, image_shape: tuple[int, int, int]) -> None:
        check_blocks(network)
        super().__init__(network)
        self._seen: list[Tensor] | None = None
        names = block_names(network)
        for name in names:
            self.network.get_submodule(name).register_forward_hook(self._look(name == names[-1]))
        with torch.no_grad():
            nothing = torch.zeros(1, *image_shape)
            sizes = [math.prod(layer.shape[1:]) for layer in self.layers(torch.zeros(self.num_parameters), nothing)]
        self.sizes_of_layers = sizes

    @property
    def num_features(self) -> int:
        """Numbers of one image in the pooled output of the last block."""
        return self.sizes_of_layers[-1]

    def _look(self, last: bool) -> Callable[..., None]:
        def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if self._seen is not None:
                self._seen.append(inputs[0] if isinstance(module, POOLING) else output)
                if last:
                    self._seen.append(output)

        return look

    def layers(self, theta_P: Tensor, images_BCHW: Tensor) -> list[Tensor]:
        """Each of (B, size), flat."""
        self._seen = []
        try:
            self.logits(theta_P, images_BCHW)
            return [layer.flatten(1) for layer in self._seen]
        finally:
            self._seen = None

    def means(self, theta_P: Tensor, images_BCHW: Tensor, shares_KB: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted sums over images of all layers, side by side (K, all sizes); and the last layer (B, size)."""
        layers = self.layers(theta_P, images_BCHW)
        return torch.cat([shares_KB @ layer for layer in layers], 1), layers[-1]

    def weights(self, of_layers: Sequence[float], like: Tensor) -> Tensor:
        """From `weights_of` to one for each number of `means`; the last layer has both of its own."""
        *blocks, pooled, flattened = of_layers
        by_layer = torch.tensor([*blocks, pooled + flattened], dtype=like.dtype, device=like.device)
        return by_layer.repeat_interleave(torch.tensor(self.sizes_of_layers, device=like.device))
