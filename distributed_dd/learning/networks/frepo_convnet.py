"""FrePo's ConvNet (Zhou et al., NeurIPS 2022): widths double, and norms come before convolutions."""

from dataclasses import dataclass

from torch import nn

from distributed_dd.family import require, setting
from distributed_dd.learning.networks.blocks import with_blocks
from distributed_dd.learning.networks.norms import GROUPS, Norm, norm_layer
from distributed_dd.learning.networks.pooling import AveragePool

MOMENTUM = 0.9
"""Share of a batch in running statistics, as published: a tenth is kept of what was there."""
DEVIATION_CUT = 0.87962566103423978
"""Of a normal distribution that is cut at two of its standard deviations."""


@dataclass(frozen=True)
class FrePoConvNet:
    """FrePo's ConvNet (NeurIPS 2022): norm but in the first block, conv 3x3, ReLU, average pooling, repeated.

    As published: three blocks of 128, 256 and 512 channels; batch norm to distil with, none to score with.
    """

    depth: int = setting("blocks; each halves height and width", 3, at_least=1, at_most=16)
    width: int = setting("channels of the first block, then twice as many each", 128, at_least=1, at_most=65_536)
    norm: Norm = setting("normalisation before the convolutions of all blocks but the first", "none")

    def __post_init__(self) -> None:
        fits = self.norm != "group" or self.width % GROUPS == 0
        require(fits, "width", f"got {self.width}", f"a multiple of {GROUPS}, for group norm")

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Layers for images of shape (C, H, W); weights by LeCun's rule, biases 0.

        Raises:
            ConfigError: the image is too small to be halved ``depth`` times.
        """
        channels, height, width = image_shape
        padding = 3 if (channels == 1 and height == 28) else 1  # 28 pixels become 32, as published
        height, width = height + 2 * (padding - 1), width + 2 * (padding - 1)
        halvings = min(height, width).bit_length() - 1
        require(
            halvings >= self.depth,
            "network.depth",
            f"{self.depth} blocks halve {image_shape[1]}x{image_shape[2]} images to nothing",
            f"at most {halvings}",
        )
        layers: list[nn.Module] = []
        for block in range(self.depth):
            wide = self.width * 2**block
            layers += [
                nn.Identity() if block == 0 else norm_layer(self.norm, channels),
                nn.Conv2d(channels, wide, 3, padding=padding if block == 0 else 1),
                nn.ReLU(),
                AveragePool(),
            ]
            channels, height, width = wide, height // 2, width // 2
        head = nn.Linear(channels * height * width, num_classes)
        network = nn.Sequential(*layers, nn.Flatten(), head)
        for module in network:
            _begin(module)
        return with_blocks(network, [str(4 * block + 3) for block in range(self.depth)])


def _begin(module: nn.Module) -> None:
    """LeCun's rule: variance 1 / inputs, from a normal distribution cut at two deviations."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        assert module.bias is not None
        deviation = module.weight[0].numel() ** -0.5 / DEVIATION_CUT
        nn.init.trunc_normal_(module.weight, 0.0, deviation, -2 * deviation, 2 * deviation)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        module.momentum = MOMENTUM
