"""VGG11 for small images (Simonyan and Zisserman, ICLR 2015)."""

from dataclasses import dataclass

from torch import nn

from distributed_dd.family import require, setting
from distributed_dd.learning.networks.blocks import with_blocks
from distributed_dd.learning.networks.norms import Norm, norm_layer

BLOCKS = ((64,), (128,), (256, 256), (512, 512), (512, 512))


@dataclass(frozen=True)
class VGG11:
    """VGG11: eight 3x3 convolutions in five blocks of one size, max pooling, one linear layer."""

    norm: Norm = setting("normalisation; students cannot use batch", "instance")
    last_stride: int = setting("of the last pooling: 2 brings 32 pixels to 1", 2, at_least=1, at_most=2)

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Layers for images of shape (C, H, W) of 32 pixels or more (28 grey ones are padded)."""
        channels, height, width = image_shape
        padding = 3 if (channels == 1 and height == 28) else 1
        rows, columns = (size + 2 * (padding - 1) for size in (height, width))
        require(min(rows, columns) >= 32, "network", f"VGG11 on {height}x{width} images", "32 pixels or more")
        layers: list[nn.Module] = []
        ends: list[str] = []
        for number, block in enumerate(BLOCKS):
            for place, size in enumerate(block):
                first = number == 0 and place == 0
                layers += [
                    nn.Conv2d(channels, size, 3, padding=padding if first else 1),
                    norm_layer(self.norm, size),
                    nn.ReLU(),
                ]
                channels = size
            stride = self.last_stride if number == len(BLOCKS) - 1 else 2
            layers.append(nn.MaxPool2d(2, stride))
            ends.append(str(len(layers) - 1))
            rows, columns = ((side - 2) // stride + 1 for side in (rows, columns))
        head = nn.Linear(channels * rows * columns, num_classes)
        return with_blocks(nn.Sequential(*layers, nn.Flatten(), head), ends)
