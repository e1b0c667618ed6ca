"""Images of all classes in blocks that fit into memory, whole classes or parts of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distributed_dd.learning.augment import Drawn, part_of

MOST_IMAGES = 256
"""Of a block: one forward pass."""


@dataclass(frozen=True)
class Piece:
    """Images ``first`` .. ``last`` of the ``total`` ones of class ``number``."""

    number: int
    first: int
    last: int
    total: int


@dataclass(frozen=True)
class Pieces:
    """The pieces of a block, in the order of classes."""

    pieces: Sequence[Piece]

    @property
    def classes(self) -> slice:
        """From the class of the first to that of the last."""
        return slice(self.pieces[0].number, self.pieces[-1].number + 1)

    @property
    def num_images(self) -> int:
        """In all of them."""
        return sum(piece.last - piece.first for piece in self.pieces)

    def shares(self, like: Tensor) -> Tensor:
        """What each image (B) has of the mean of each class (K, B), if all the class is in some block."""
        first, shares = self.classes.start, torch.zeros(self.classes.stop - self.classes.start, self.num_images)
        row = 0
        for piece in self.pieces:
            end = row + piece.last - piece.first
            shares[piece.number - first, row:end] = 1.0
            row = end
        totals = torch.ones(len(shares), dtype=like.dtype)
        for piece in self.pieces:
            totals[piece.number - first] = piece.total
        return (shares.to(like.dtype) / totals[:, None]).to(like.device)

    def augmented(self, images: Tensor, augments: Sequence[Drawn]) -> Tensor:
        """Every piece of ``images`` by the augmentation of its class."""
        rows = images.split([piece.last - piece.first for piece in self.pieces])
        drawn = [part_of(augments[piece.number], piece.first, piece.last) for piece in self.pieces]
        return torch.cat([augment(part) for augment, part in zip(drawn, rows, strict=True)])


def blocks_of(spans: Sequence[tuple[int, int]], totals: Sequence[int]) -> Iterator[Pieces]:
    """Blocks of at most `MOST_IMAGES` that cover images ``spans[c]`` of every class c, which has ``totals[c]``.

    Classes without images here are in none.
    """
    pieces: list[Piece] = []
    room = MOST_IMAGES
    for number, ((first, last), total) in enumerate(zip(spans, totals, strict=True)):
        while first < last:
            end = min(last, first + room)
            pieces.append(Piece(number, first, end, total))
            first, room = end, room - (end - first)
            if not room:
                yield Pieces(pieces)
                pieces, room = [], MOST_IMAGES
    if pieces:
        yield Pieces(pieces)
