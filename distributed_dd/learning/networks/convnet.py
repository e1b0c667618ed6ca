"""The field's ConvNet: blocks of convolution, norm, ReLU and pooling, then one linear layer."""

from dataclasses import dataclass

from torch import nn

from distributed_dd.family import require, setting
from distributed_dd.learning.networks.blocks import with_blocks
from distributed_dd.learning.networks.norms import GROUPS, Norm, Pooling, norm_layer, pooling_layer


@dataclass(frozen=True)
class ConvNet:
    """The field's ConvNet (Gidaris and Komodakis, 2018): conv 3x3, norm, ReLU, pooling, repeated."""

    depth: int = setting("blocks; each halves height and width", 3, at_least=1, at_most=1_000)
    width: int = setting("channels of every block", 128, at_least=1, at_most=65_536)
    norm: Norm = setting("normalisation; students cannot use batch", "instance")
    pooling: Pooling = setting("how a block halves height and width", "average")

    def __post_init__(self) -> None:
        fits = self.norm != "group" or self.width % GROUPS == 0
        require(fits, "width", f"got {self.width}", f"a multiple of {GROUPS}, for group norm")

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Layers for images of shape (C, H, W); torch's default initialisation.

        Raises:
            ConfigError: the image is too small to be halved ``depth`` times.
        """
        channels, height, width = image_shape
        # 28-pixel greyscale data is padded to 32 by the first convolution, as the field does.
        padding = 3 if (channels == 1 and height == 28) else 1
        height, width = height + 2 * (padding - 1), width + 2 * (padding - 1)
        layers: list[nn.Module] = []
        for block in range(self.depth):
            if self.pooling != "none":
                require(
                    min(height, width) >= 2,
                    "network.depth",
                    f"{self.depth} blocks halve {image_shape[1]}x{image_shape[2]} images to nothing",
                    f"at most {block}",
                )
                height, width = height // 2, width // 2
            layers += [
                nn.Conv2d(channels, self.width, 3, padding=padding if block == 0 else 1),
                norm_layer(self.norm, self.width),
                nn.ReLU(),
                pooling_layer(self.pooling),
            ]
            channels = self.width
        ends = [str(4 * block + 3) for block in range(self.depth)]
        head = nn.Linear(channels * height * width, num_classes)
        return with_blocks(nn.Sequential(*layers, nn.Flatten(), head), ends)
