"""Pictures as they are."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from torch import Tensor

from distributed_dd.learning.set_forms.form import Codec, SetForm, Shape


@dataclass(frozen=True)
class Pixels(SetForm):
    """Every number of an image, float32."""

    plain: ClassVar[bool] = True

    def fitted(self, image_shape: Shape, real: Callable[[], Tensor]) -> Codec:
        """Rows are the pictures."""
        return Identity(prod(image_shape))

    def in_words(self, image_shape: Shape) -> str:
        """They lie there."""
        return "images are kept as they are"


class Identity(Codec):
    """A row is one picture."""

    def __init__(self, picture_numbers: int) -> None:
        self._numbers = picture_numbers

    @property
    def picture_numbers(self) -> int:
        """Of the shape that it was made for."""
        return self._numbers

    def encode(self, images: Tensor) -> Tensor:
        """Nothing is done."""
        return images

    def decode(self, rows: Tensor) -> Tensor:
        """Nothing is done."""
        return rows

    def decoded(self, rows: Tensor) -> Tensor:
        """Nothing is copied."""
        return rows
