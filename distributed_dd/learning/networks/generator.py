"""The conditional generator: noise and a class to an image (Wang et al., DiM, arXiv 2303.04707)."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from distributed_dd.errors import ConfigError
from distributed_dd.family import require, setting
from distributed_dd.learning.networks.batch_norm import BatchNorm

SMALLEST = 4


def sizes_up(side: int) -> list[int]:
    """Side lengths from the smallest feature map to the image, each about twice the last: 4, 7, 14, 28."""
    sizes = [side]
    while sizes[0] > SMALLEST:
        sizes.insert(0, (sizes[0] + 1) // 2)
    return sizes


@dataclass(frozen=True)
class ConvGenerator:
    """Transposed convolutions that double the image, 3x3 convolutions between them, tanh at the end."""

    width: int = setting("channels of every layer", 196, at_least=1, at_most=65_536)
    noise_size: int = setting(
        "entries of the noise; the first ones become the one-hot class", 100, at_least=2, at_most=65_536
    )

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Layers from (B, noise_size) to images (B, C, H, W) in [-1, 1]; torch's default initialisation.

        Raises:
            ConfigError: the noise has no room beside the classes, or the image is not square or too small.
        """
        channels, side, _ = image_shape
        require(
            self.noise_size > num_classes,
            "method.generator.noise_size",
            f"{self.noise_size} entries, of which the {num_classes} classes take one each",
            f"more than {num_classes}",
        )
        check_image("method.generator", image_shape)
        sides = sizes_up(side)
        first = self.width * sides[0] ** 2
        layers: list[nn.Module] = [
            nn.Linear(self.noise_size, first),
            BatchNorm(first),
            nn.ReLU(),
            nn.Unflatten(1, (self.width, sides[0], sides[0])),
        ]
        for number, (small, large) in enumerate(pairwise(sides)):
            kernel = 4 if large == 2 * small else 3
            layers += self._block(nn.ConvTranspose2d(self.width, self.width, kernel, 2, 1))
            last = number == len(sides) - 2 and number > 0
            for _ in range(0 if last else 3 if number == 0 else 1):
                layers += self._block(nn.Conv2d(self.width, self.width, 3, padding=1))
        return nn.Sequential(*layers, nn.Conv2d(self.width, channels, 3, padding=1), nn.Tanh())

    def _block(self, convolution: nn.Module) -> list[nn.Module]:
        return [convolution, BatchNorm(self.width), nn.ReLU()]


def check_image(where: str, image_shape: tuple[int, int, int]) -> None:
    """Refuse images that generator and discriminator cannot halve down to a small square.

    Raises:
        ConfigError: the image is not square, or too small.
    """
    _, height, width = image_shape
    if height != width or height < 2 * SMALLEST:
        raise ConfigError(where, f"images of {height}x{width}", allowed=f"squares of {2 * SMALLEST} or more")


def conditioned(noise_BZ: Tensor, classes_B: Tensor, num_classes: int) -> Tensor:
    """The noise with its first entries overwritten by the one-hot class: what a generator takes."""
    hot = one_hot(classes_B, num_classes).to(noise_BZ.dtype)
    return torch.cat([hot, noise_BZ[:, num_classes:]], 1)
