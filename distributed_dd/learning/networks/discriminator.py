"""The discriminator with an auxiliary classifier: real or generated, and which class (Odena et al., 2017)."""

from dataclasses import dataclass

from torch import Tensor, nn

from distributed_dd.family import require, setting
from distributed_dd.learning.networks.generator import check_image, sizes_up

NUM_LAYERS = 8
HALVING = {1: (8,), 2: (4, 8), 3: (2, 4, 8), 4: (2, 4, 6, 8), 5: (2, 3, 4, 6, 8)}


@dataclass(frozen=True)
class ConvDiscriminator:
    """Eight 3x3 convolutions, each with layer norm and leaky ReLU; two heads."""

    width: int = setting("channels of every layer", 196, at_least=1, at_most=65_536)

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Layers from images (B, C, H, W) in [-1, 1] to (B, 1 + K): the source score, then class logits.

        No layer looks at more than one image, as the gradient penalty asks for.
        """
        check_image("method.discriminator", image_shape)
        channels, side, _ = image_shape
        sides = sizes_up(side)
        require(
            len(sides) - 1 in HALVING,
            "method.discriminator",
            f"images of {side}x{side}",
            f"{sides[0]} times 2 to 32",
        )
        layers: list[nn.Module] = []
        for number in range(1, NUM_LAYERS + 1):
            halves = number in HALVING[len(sides) - 1]
            side = (side + 1) // 2 if halves else side
            layers += [
                nn.Conv2d(channels, self.width, 3, 2 if halves else 1, 1),
                nn.LayerNorm([self.width, side, side]),
                nn.LeakyReLU(0.01),
            ]
            channels = self.width
        heads = nn.Linear(self.width, 1 + num_classes)
        return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), heads)


def source_and_class(out_BH: Tensor) -> tuple[Tensor, Tensor]:
    """Source scores (B,) and class logits (B, K) of what a discriminator gives."""
    return out_BH[:, 0], out_BH[:, 1:]
