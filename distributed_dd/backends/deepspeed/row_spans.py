"""Which rows of a set are where on one rank."""

from dataclasses import dataclass
from itertools import pairwise

import torch

from distributed_dd.backends.deepspeed.zero import Zero
from distributed_dd.outer.checkpoint import Saved
from distributed_dd.unroll.layout import Layout

Span = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class RowSpans:
    """Rows of the whole set, each as first and last (exclusive).

    Attributes:
        kept: those that this rank saves. read: those that it reads, and hands in the gradients of.
        held: those that are parameters here, cut up or not. blocks: the classes among ``held``, in order.
    """

    num_rows: int = 0
    kept: Span = (0, 0)
    read: Span = (0, 0)
    held: Span = (0, 0)
    blocks: tuple[Span, ...] = ()

    @classmethod
    def of(cls, saved: Saved, zero: Zero, layout: Layout) -> "RowSpans":
        """The spans of a checkpoint with rows, on the rank that ``layout`` describes."""
        everything, kept = (0, saved.num_rows), layout.kept(saved.num_rows)
        held = kept if zero.own_rows else everything
        sizes = torch.unique_consecutive(saved.rows("classes", *held), return_counts=True)[1]
        blocks = pairwise([held[0], *(held[0] + sizes.cumsum(0)).tolist()])
        return cls(
            num_rows=saved.num_rows,
            kept=kept,
            read=kept if zero.parted else everything,
            held=held,
            blocks=tuple(blocks),
        )

    def in_module(self, span: Span) -> Span:
        """Rows as counted from the first that is a parameter here."""
        return span[0] - self.held[0], span[1] - self.held[0]

    def in_read(self, span: Span) -> Span:
        """Rows as counted from the first that is read."""
        return span[0] - self.read[0], span[1] - self.read[0]

    def kept_of(self, block: Span) -> Span:
        """The rows of a block that this rank keeps, as the block counts its own."""
        low, high = max(block[0], self.kept[0]) - block[0], min(block[1], self.kept[1]) - block[0]
        return (low, high) if low < high else (0, 0)
