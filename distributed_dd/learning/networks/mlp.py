"""A multilayer perceptron."""

from dataclasses import dataclass
from math import prod

from torch import nn

from distributed_dd.family import setting
from distributed_dd.learning.networks.blocks import with_blocks


@dataclass(frozen=True)
class MLP:
    """Fully connected ReLU layers (three linear layers of width 128 in the field)."""

    depth: int = setting("linear layers, the classifier included", 3, at_least=1, at_most=1_000)
    width: int = setting("hidden units of every layer", 128, at_least=1, at_most=65_536)

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Layers for images of shape (C, H, W); torch's default initialisation."""
        layers: list[nn.Module] = [nn.Flatten()]
        size = prod(image_shape)
        for _ in range(self.depth - 1):
            layers += [nn.Linear(size, self.width), nn.ReLU()]
            size = self.width
        hidden = [str(2 * number) for number in range(1, self.depth)]
        return with_blocks(nn.Sequential(*layers, nn.Linear(size, num_classes)), hidden)
