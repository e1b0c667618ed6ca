"""How the pictures of a distilled set are stored: the contract of its forms.

A method sees pictures (n, C, H, W) and hands in their gradients; what is learned, and kept, are rows. One stored row
takes the bytes of one picture at most and may hold several: all of one class, decoded side by side.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from math import prod
from typing import ClassVar

import torch
from torch import Tensor

from distributed_dd.errors import ConfigError
from distributed_dd.family import require

Shape = tuple[int, int, int]
FLOAT = 4
BLOCK_BYTES = 2**22
"""Decoded bytes of the rows that are decoded, or differentiated, at once."""


class Codec(ABC):
    """A form that fits images of one shape: from pictures to rows and back.

    Attributes:
        pictures: that one row holds; picture j of row i has number ``i * pictures + j``.
    """

    pictures: int = 1

    def tensors(self) -> dict[str, Tensor]:
        """What was chosen by looking at real images, for whoever makes this codec again."""
        return {}

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Rows (n, ..) that come nearest to pictures (n * pictures, C, H, W)."""

    @abstractmethod
    def decode(self, rows: Tensor) -> Tensor:
        """The pictures (n * pictures, C, H, W) of rows (n, ..), with a graph where rows have one."""

    def packed(self, rows: Tensor) -> dict[str, Tensor]:
        """What an artefact keeps of rows (n, ..): by default themselves."""
        return {"images": rows}

    def opened(self, packed: Mapping[str, Tensor]) -> Tensor:
        """The pictures in what `packed` gave, bit for bit those that `decode` gives of the same rows."""
        return self.decoded(packed["images"])

    @torch.no_grad()
    def decoded(self, rows: Tensor) -> Tensor:
        """`decode` without a graph, a block of rows at a time."""
        first, *others = self._blocks(rows)
        part = self.decode(rows[first])
        if not others:
            return part
        result = part.new_empty(len(rows) * self.pictures, *part.shape[1:])
        result[self._own(first)] = part
        for block in others:
            result[self._own(block)] = self.decode(rows[block])
        return result

    def pulled_back(self, rows: Tensor, gradient: Tensor) -> Tensor:
        """The gradient by rows (n, ..) of what has this gradient (n * pictures, C, H, W) by the pictures of the rows.

        A block of rows at a time, so that the graph never grows with the set.
        """
        result = torch.empty_like(rows)
        for block in self._blocks(rows):
            leaf = rows[block].detach().requires_grad_()
            with torch.enable_grad():
                pictures = self.decode(leaf)
            (result[block],) = torch.autograd.grad(pictures, leaf, gradient[self._own(block)])
        return result

    def _own(self, block: slice) -> slice:
        """The pictures of a block of rows."""
        return slice(block.start * self.pictures, block.stop * self.pictures)

    @property
    @abstractmethod
    def picture_numbers(self) -> int:
        """Numbers of one picture."""

    def _blocks(self, rows: Tensor) -> list[slice]:
        length = max(1, BLOCK_BYTES // (self.pictures * self.picture_numbers * rows.element_size()))
        return [slice(first, min(first + length, len(rows))) for first in range(0, max(1, len(rows)), length)]


class SetForm(ABC):
    """Settings of a form.

    Attributes:
        plain: whether rows are the pictures themselves.
    """

    plain: ClassVar[bool] = False

    def pictures(self, image_shape: Shape) -> int:
        """Pictures that one stored image holds."""
        return 1

    def numbers(self, image_shape: Shape) -> int:
        """Numbers that are learned of one stored image."""
        return prod(image_shape)

    def num_bytes(self, image_shape: Shape) -> int:
        """Bytes of one stored image in an artefact, without what all images share."""
        return FLOAT * self.numbers(image_shape)

    def check(self, image_shape: Shape) -> None:
        """Refuse what images of this shape cannot be stored in.

        Raises:
            ConfigError: at the setting, below ``set.form``.
        """
        own, pixels = self.num_bytes(image_shape), FLOAT * prod(image_shape)
        require(
            own <= pixels,
            "set.form",
            f"a stored image takes {own:,} bytes, and as pixels {pixels:,}",
            "at most the bytes of pixels",
            "fewer pictures in a stored image, or set.form.kind=pixels",
        )

    @abstractmethod
    def fitted(self, image_shape: Shape, real: Callable[[], Tensor]) -> Codec:
        """The codec for images of this shape; ``real``: the training images (n, C, H, W), where it looks at them."""

    def codec(self, image_shape: Shape, tensors: Mapping[str, Tensor]) -> Codec:
        """The same codec again, from its `Codec.tensors`."""
        return self.fitted(image_shape, _not_there)

    @abstractmethod
    def in_words(self, image_shape: Shape) -> str:
        """How a stranger gets the pictures from what an artefact keeps."""


def _not_there() -> Tensor:
    raise ConfigError("set.form", "what was chosen by looking at real images is missing")
