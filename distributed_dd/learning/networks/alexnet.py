"""AlexNet narrowed for small images, as the field evaluates it."""

from dataclasses import dataclass

from torch import nn

from distributed_dd.family import require, setting
from distributed_dd.learning.networks.blocks import with_blocks


@dataclass(frozen=True)
class AlexNet:
    """AlexNet for small images: convolutions of 128, 192, 256, 192, 192 channels and one linear layer."""

    stride: int = setting("of the first convolution: 1 up to 32 pixels, 2 for 64", 1, at_least=1, at_most=2)

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Layers for images of shape (C, H, W) of 8 pixels or more."""
        channels, height, width = image_shape
        require(min(height, width) >= 8, "network", f"AlexNet on {height}x{width} images", "8 pixels or more")
        padding = 4 if (channels == 1 and height == 28) else 2
        rows, columns = (((size + 2 * padding - 5) // self.stride + 1) // 8 for size in (height, width))
        layers = nn.Sequential(
            nn.Conv2d(channels, 128, 5, self.stride, padding),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(128, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(192, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 192, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(192, 192, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(192 * rows * columns, num_classes),
        )
        return with_blocks(layers, ("2", "5", "12"))
