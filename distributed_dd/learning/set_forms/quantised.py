"""Whole numbers of few bits in place of float32."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor

from distributed_dd.family import setting
from distributed_dd.learning.set_forms.form import FLOAT, Codec, SetForm, Shape

CODES, LOW, STEP = "codes", "low", "step"


@dataclass(frozen=True)
class Quantised(SetForm):
    """Whole numbers of 8 or 4 bits, between the least and the largest of each picture and channel."""

    bits: Literal[8, 4] = setting("of a number", 8)
    per_image: int = setting("pictures in a stored image, which may not take more bytes than pixels", 1, at_least=1)

    def pictures(self, image_shape: Shape) -> int:
        """As many as were asked for."""
        return self.per_image

    def numbers(self, image_shape: Shape) -> int:
        """Learned in float32: rounding moves none of them."""
        return self.per_image * prod(image_shape)

    def num_bytes(self, image_shape: Shape) -> int:
        """Whole numbers, and two floats for each picture and channel."""
        return self.per_image * (-(-prod(image_shape) * self.bits // 8) + 2 * FLOAT * image_shape[0])

    def fitted(self, image_shape: Shape, real: Callable[[], Tensor]) -> Codec:
        """Nothing is looked at: every picture has its own range."""
        return Levels(self.bits, self.per_image, image_shape)

    def in_words(self, image_shape: Shape) -> str:
        """Multiplied and added."""
        halves = "each byte of stored.codes holds two numbers, the first in its upper half; " if self.bits == 4 else ""
        return (
            f"{halves}a picture is stored.low + number * stored.step, where low and step (n, pictures, C) are those of "
            "its channel; pictures of a stored image follow one another"
        )


class Levels(Codec):
    """Rounds each picture to 2 ** bits levels of its channels; gradients pass as if it did not."""

    def __init__(self, bits: int, pictures: int, image_shape: Shape) -> None:
        self.bits, self.pictures, self.shape = bits, pictures, image_shape

    @property
    def picture_numbers(self) -> int:
        """All of them."""
        return prod(self.shape)

    def encode(self, images: Tensor) -> Tensor:
        """Nothing is rounded yet."""
        return images.reshape(-1, self.pictures, *self.shape)

    def decode(self, rows: Tensor) -> Tensor:
        """Rounded; the gradient is that of the rows (straight through)."""
        rounded: Tensor = _StraightThrough.apply(rows.flatten(0, 1), self)
        return rounded

    def rounded(self, images: Tensor) -> Tensor:
        """Images (n, C, H, W) at their levels."""
        return _values(*self._levels(images))

    def packed(self, rows: Tensor) -> dict[str, Tensor]:
        """Bytes (n, pictures, bytes of a picture); low and step (n, pictures, C)."""
        codes, low, step = self._levels(rows.flatten(0, 1))
        codes = codes.to(torch.uint8).flatten(1)
        if self.bits == 4:
            if codes.shape[1] % 2:
                codes = torch.cat([codes, codes.new_zeros(len(codes), 1)], 1)
            codes = codes[:, 0::2] * 16 + codes[:, 1::2]
        parts = {CODES: codes, LOW: low.flatten(1), STEP: step.flatten(1)}
        return {name: part.reshape(-1, self.pictures, part.shape[1]) for name, part in parts.items()}

    def opened(self, packed: Mapping[str, Tensor]) -> Tensor:
        """By the same arithmetic as `decode`."""
        codes, low, step = (packed[name].flatten(0, 1) for name in (CODES, LOW, STEP))
        if self.bits == 4:
            codes = torch.stack([codes // 16, codes % 16], 2).flatten(1)[:, : self.picture_numbers]
        codes = codes.reshape(-1, *self.shape).to(low.dtype)
        return _values(codes, low[..., None, None], step[..., None, None])

    def _levels(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Numbers of levels (n, C, H, W), as floats; the lowest level and their distance (n, C, 1, 1)."""
        low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
        last = 2**self.bits - 1
        step = (high - low) / last
        codes = torch.where(step > 0, (images - low) / step, torch.zeros_like(images))
        return codes.round().clamp_(0, last), low, step


def _values(codes: Tensor, low: Tensor, step: Tensor) -> Tensor:
    return low + codes * step


class _StraightThrough(torch.autograd.Function):
    """Rounds; hands gradients on."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, levels: Levels) -> Tensor:
        return levels.rounded(images)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
