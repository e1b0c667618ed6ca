"""Student batches divided over ranks: each place of a group has a part of every batch of the group's student."""

from collections.abc import Sequence

from torch import Tensor

from distributed_dd.learning.augment import Drawn, part_of
from distributed_dd.unroll.exchanged import Exchanged
from distributed_dd.unroll.layout import Layout
from distributed_dd.unroll.ranks import Ranks
from distributed_dd.unroll.rows import RowGradients, Rows, Whole


class Divided:
    """The batches of one student for each group, seen from one rank.

    Args:
        batches: of each group, the rows of every student step; all groups make equally many steps.
        num_rows: of the whole set.
    """

    def __init__(self, ranks: Ranks, batches: Sequence[Sequence[Tensor]], num_rows: int) -> None:
        self._ranks, self._batches, self._num_rows = ranks, batches, num_rows
        own = batches[ranks.layout.group]
        self._parts = [ranks.layout.part(len(batch)) for batch in own]
        alone = ranks.layout.group_size == 1
        shares = [(b - a) / len(batch) for (a, b), batch in zip(self._parts, own, strict=True)]
        self.shares = None if alone else shares

    def augment(self, drawn: Sequence[Drawn]) -> list[Drawn]:
        """Of each step, for this rank's part of the batch."""
        return [part_of(one, *part) for one, part in zip(drawn, self._parts, strict=True)]

    def rows(self, images: Tensor, labels: Tensor, gradients: RowGradients) -> Rows:
        """Where this rank reads its parts: here, if all rows are at hand, else from the ranks that keep them."""
        layout, steps = self._ranks.layout, range(len(self._batches[0]))
        if len(images) == self._num_rows:
            batches = [self._own(layout, step).to(images.device) for step in steps]
            return Whole((images, labels), batches, gradients)
        everyone = [[self._own(layout.at(rank), step) for rank in range(layout.num_ranks)] for step in steps]
        return Exchanged(images, labels, self._num_rows, everyone, self._ranks, gradients)

    def _own(self, there: Layout, step: int) -> Tensor:
        batch = self._batches[there.group][step]
        first, last = there.part(len(batch))
        return batch[first:last]
