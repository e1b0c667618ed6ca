"""ResNets of basic residual units with the small-image stem: 3x3, no max pooling (He et al., CVPR 2016)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from distributed_dd.family import require, setting
from distributed_dd.learning.networks.blocks import with_blocks
from distributed_dd.learning.networks.norms import Norm, norm_layer


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where shapes change.

    ``average`` halves the image by average pooling after convolutions of stride 1.
    """

    def __init__(self, channels: int, out: int, stride: int, norm: Norm, average: bool) -> None:
        super().__init__()
        step = 1 if average else stride
        halve = nn.AvgPool2d(stride) if average and stride > 1 else nn.Identity()
        self.body = nn.Sequential(
            nn.Conv2d(channels, out, 3, step, 1, bias=False),
            norm_layer(norm, out),
            nn.ReLU(),
            halve,
            nn.Conv2d(out, out, 3, 1, 1, bias=False),
            norm_layer(norm, out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels != out:
            pool = nn.AvgPool2d(stride) if average and stride > 1 else nn.Identity()
            convolution = nn.Conv2d(channels, out, 1, step, bias=False)
            self.shortcut = nn.Sequential(convolution, pool, norm_layer(norm, out))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.body(x) + self.shortcut(x))


@dataclass(frozen=True)
class ResNet18:
    """ResNet18 for small images: 3x3 stem, four blocks of two residual units, global average pooling."""

    units: ClassVar[int] = 2

    norm: Norm = setting("normalisation; students cannot use batch", "instance")
    downsample: Literal["stride", "average"] = setting("how a block halves the image", "stride")
    width: int = setting("channels of the first block; each block doubles them", 64, at_least=1, at_most=65_536)
    stem_stride: int = setting("of the stem: 1 up to 32 pixels, 2 for 64", 1, at_least=1, at_most=2)

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Layers for images of shape (C, H, W) of 16 pixels or more (8 without instance norm)."""
        channels, height, width = image_shape
        # At one pixel an instance norm has one value to normalise, and passes nothing on but its bias.
        least = (16 if self.norm == "instance" else 8) * self.stem_stride
        require(
            min(height, width) >= least,
            "network",
            f"ResNet with {self.norm} norm on {height}x{width} images",
            f"{least} pixels or more",
            "choose norm=batch or group for small images",
        )
        stem = nn.Conv2d(channels, self.width, 3, self.stem_stride, 1, bias=False)
        layers: list[nn.Module] = [stem, norm_layer(self.norm, self.width), nn.ReLU()]
        channels, average = self.width, self.downsample == "average"
        ends = [len(layers) - 1]
        for block in range(4):
            for unit in range(self.units):
                stride = 2 if block > 0 and unit == 0 else 1
                layers.append(ResidualUnit(channels, self.width * 2**block, stride, self.norm, average))
                channels = self.width * 2**block
            ends.append(len(layers) - 1)
        pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)]
        return with_blocks(nn.Sequential(*layers, *pooled), [*map(str, ends)])


@dataclass(frozen=True)
class ResNet10(ResNet18):
    """ResNet10 for small images: as ResNet18, with one residual unit in each block."""

    units: ClassVar[int] = 1
