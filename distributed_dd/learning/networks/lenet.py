"""LeNet-5 with ReLU and max pooling, as the field evaluates it."""

from dataclasses import dataclass

from torch import nn

from distributed_dd.family import require, setting
from distributed_dd.learning.networks.blocks import with_blocks


@dataclass(frozen=True)
class LeNet:
    """LeNet: two 5x5 convolutions (6 and 16 channels) and three linear layers (LeCun et al., 1998)."""

    stride: int = setting("of the first convolution: 1 up to 32 pixels, 2 for 64", 1, at_least=1, at_most=2)

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Layers for images of shape (C, H, W) of 16 pixels or more."""
        channels, height, width = image_shape
        require(min(height, width) >= 16, "network", f"LeNet on {height}x{width} images", "16 pixels or more")
        padding = 2 if height == 28 else 0
        rows, columns = (self._side(size, padding) for size in (height, width))
        layers = nn.Sequential(
            nn.Conv2d(channels, 6, 5, self.stride, padding),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * rows * columns, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, num_classes),
        )
        return with_blocks(layers, ("2", "5"))

    def _side(self, size: int, padding: int) -> int:
        first = (size + 2 * padding - 5) // self.stride + 1
        return (first // 2 - 4) // 2
