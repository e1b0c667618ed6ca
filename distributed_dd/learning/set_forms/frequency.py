"""Some frequencies of several pictures in the bytes of one (FreD, Shin et al., NeurIPS 2023)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from distributed_dd.family import require, setting
from distributed_dd.learning.set_forms.form import BLOCK_BYTES, Codec, SetForm, Shape

MASK = "mask"
SLACK = 1e-9
"""A share such as 1/3 is no number of a computer: its inverse may fall short of 3 by rounding."""


@dataclass(frozen=True)
class Frequency(SetForm):
    """The cosine coefficients that vary most among real images, the same for all pictures (FreD, NeurIPS 2023)."""

    share: float = setting(
        "of an image's coefficients that are kept; a stored image holds 1 / share pictures", 0.25, above=0, at_most=1
    )

    def pictures(self, image_shape: Shape) -> int:
        """As many as the bytes of an image hold."""
        return math.floor(1 / self.share + SLACK)

    def kept(self, image_shape: Shape) -> int:
        """Coefficients of a picture that are kept."""
        return math.floor(self.share * prod(image_shape) + SLACK)

    def numbers(self, image_shape: Shape) -> int:
        """The coefficients of all pictures."""
        return self.pictures(image_shape) * self.kept(image_shape)

    def check(self, image_shape: Shape) -> None:
        """Refuse a share of which nothing is left."""
        count = prod(image_shape)
        require(
            self.kept(image_shape) >= 1,
            "set.form.share",
            f"{self.share:g} of {count:,} coefficients is less than one",
            f"at least 1 / {count:,}",
        )
        super().check(image_shape)

    def fitted(self, image_shape: Shape, real: Callable[[], Tensor]) -> Codec:
        """The coefficients of largest variance over real images, of all channels together; of equals the first."""
        variance = variance_of_coefficients(real()).flatten()
        index = variance.argsort(descending=True, stable=True)[: self.kept(image_shape)]
        mask = torch.zeros(len(variance), dtype=torch.bool)
        mask[index] = True
        return self.codec(image_shape, {MASK: mask.reshape(image_shape)})

    def codec(self, image_shape: Shape, tensors: Mapping[str, Tensor]) -> Codec:
        """With the coefficients in ``mask`` (C, H, W)."""
        mask = tensors[MASK]
        require(
            tuple(mask.shape) == tuple(image_shape) and int(mask.sum()) == self.kept(image_shape),
            "set.form",
            f"the mask {tuple(mask.shape)} of {int(mask.sum())} coefficients is not of these images",
            f"{self.kept(image_shape)} of {tuple(image_shape)}",
        )
        return Coefficients(mask, self.pictures(image_shape))

    def in_words(self, image_shape: Shape) -> str:
        """Filled up and transformed back."""
        return (
            "stored.images (n, pictures, kept) are the coefficients at form.mask (C, H, W), row by row, all others are "
            "0; transform each channel back by the orthonormal two-dimensional DCT-II (scipy.fft.idctn, norm='ortho'); "
            "pictures of a stored image follow one another"
        )


class Coefficients(Codec):
    """Coefficients of the orthonormal DCT-II of each channel, at the places of a mask (C, H, W)."""

    def __init__(self, mask: Tensor, pictures: int) -> None:
        self.mask, self.pictures = mask, pictures
        self._places = mask.flatten().nonzero().flatten()
        self._down, self._across = cosines(mask.shape[1]), cosines(mask.shape[2])

    @property
    def picture_numbers(self) -> int:
        """Of all coefficients."""
        return self.mask.numel()

    def tensors(self) -> dict[str, Tensor]:
        """The mask."""
        return {MASK: self.mask}

    def encode(self, images: Tensor) -> Tensor:
        """The nearest there is: the transform is orthonormal."""
        down, across = (matrix.to(images) for matrix in (self._down, self._across))
        spectrum = (down @ images @ across.T).flatten(1)
        return spectrum[:, self._places.to(images.device)].reshape(-1, self.pictures, len(self._places))

    def decode(self, rows: Tensor) -> Tensor:
        """Two matrix products a channel."""
        down, across = (matrix.to(rows) for matrix in (self._down, self._across))
        coefficients = rows.flatten(0, 1)
        spectrum = rows.new_zeros(len(coefficients), self.mask.numel())
        spectrum = spectrum.index_copy(1, self._places.to(rows.device), coefficients)
        return down.T @ spectrum.reshape(-1, *self.mask.shape) @ across


def cosines(size: int) -> Tensor:
    """The matrix (size, size) of the orthonormal DCT-II, float64: a row a frequency."""
    place, frequency = torch.arange(size, dtype=torch.float64), torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(math.pi / size * (place + 0.5) * frequency[:, None]) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix


def variance_of_coefficients(images: Tensor) -> Tensor:
    """The variance (C, H, W) of each coefficient over images (n, C, H, W), in float64, a block at a time."""
    down, across = cosines(images.shape[2]), cosines(images.shape[3])
    length = max(1, BLOCK_BYTES // (8 * prod(images.shape[1:])))
    total = torch.zeros(images.shape[1:], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for block in images.split(length):
        spectrum = down @ block.cpu().double() @ across.T
        total += spectrum.sum(0)
        squares += spectrum.square_().sum(0)
    return squares / len(images) - (total / len(images)).square()
