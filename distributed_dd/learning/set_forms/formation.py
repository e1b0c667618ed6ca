"""Several small pictures in one image (IDC, Kim et al., ICML 2022)."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from distributed_dd.family import require, setting
from distributed_dd.learning.set_forms.form import Codec, SetForm, Shape


@dataclass(frozen=True)
class Formation(SetForm):
    """Images cut into factor x factor tiles, each a picture of its own once it is enlarged (IDC, ICML 2022)."""

    factor: int = setting("tiles along each side; an image holds factor x factor pictures", 2, at_least=1)

    def pictures(self, image_shape: Shape) -> int:
        """One a tile."""
        return self.factor**2

    def check(self, image_shape: Shape) -> None:
        """Refuse tiles without a pixel."""
        _, height, width = image_shape
        require(
            self.factor <= min(height, width),
            "set.form.factor",
            f"{self.factor} tiles along a side of {min(height, width)} pixels: some would have none",
            f"at most {min(height, width)}",
        )
        super().check(image_shape)

    def fitted(self, image_shape: Shape, real: Callable[[], Tensor]) -> Codec:
        """Nothing is looked at."""
        return Tiles(self.factor, image_shape)

    def in_words(self, image_shape: Shape) -> str:
        """Cut and enlarged."""
        return (
            f"cut stored.images (n, C, H, W) into {self.factor} x {self.factor} tiles, sides as even as they go and "
            "the longer first; enlarge each to (H, W), bilinear with align_corners=False; tiles of an image follow one "
            "another, row by row"
        )


class Tiles(Codec):
    """Cuts and enlarges; makes smaller by the mean of the pixels that fall together."""

    def __init__(self, factor: int, image_shape: Shape) -> None:
        self.shape, self.pictures = image_shape, factor**2
        rows, columns = (_cuts(side, factor) for side in image_shape[1:])
        self._tiles = [(row, column) for row in rows for column in columns]

    @property
    def picture_numbers(self) -> int:
        """Of an enlarged tile."""
        return prod(self.shape)

    def encode(self, images: Tensor) -> Tensor:
        """Each picture, made smaller, in its tile."""
        grouped = images.reshape(-1, self.pictures, *self.shape)
        result = torch.empty_like(grouped[:, 0])
        for number, (row, column) in enumerate(self._tiles):
            size = row.stop - row.start, column.stop - column.start
            result[:, :, row, column] = interpolate(grouped[:, number], size=size, mode="area")
        return result

    def decode(self, rows: Tensor) -> Tensor:
        """Each tile, enlarged."""
        size = self.shape[1:]
        tiles = [
            interpolate(rows[:, :, row, column], size=size, mode="bilinear", align_corners=False)
            for row, column in self._tiles
        ]
        return torch.stack(tiles, 1).flatten(0, 1)


def _cuts(side: int, factor: int) -> list[slice]:
    """Contiguous parts of a side, whose lengths differ by one at most, the longer first."""
    length, rest = divmod(side, factor)
    edges = [part * length + min(part, rest) for part in range(factor + 1)]
    return [slice(first, last) for first, last in pairwise(edges)]
