"""Rows of a synthetic set of which every rank keeps a part."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from distributed_dd.unroll.layout import span
from distributed_dd.unroll.ranks import Arrival, Ranks
from distributed_dd.unroll.rows import RowGradients


@dataclass(frozen=True)
class _Plan:
    """Who sends which rows to whom in one student step.

    Attributes:
        sent: rows kept here (counted from the first kept one), ordered by the rank that wants them.
        num_sent, num_received: how many go to, and come from, each rank.
        place: for each row of this rank's batch, its place among the rows that arrive.
    """

    sent: Tensor
    num_sent: list[int]
    num_received: list[int]
    place: Tensor


class Exchanged:
    """Each rank keeps a contiguous part of the set; rows travel to the rank that trains on them and back.

    Per student step B rows in all move, whatever the size of the set. All ranks know all batches (they are
    drawn from one seed), so no rank has to ask.

    Args:
        images, labels: the rows that this rank keeps.
        num_rows: rows of the whole set.
        batches: per student step, the rows that each rank trains on, in the order of ranks.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        num_rows: int,
        batches: Sequence[Sequence[Tensor]],
        ranks: Ranks,
        gradients: RowGradients,
    ) -> None:
        self._ranks, self.gradients, self._shape = ranks, gradients, images.shape[1:]
        self._images, self._labels = images.detach(), labels.detach()
        self._numbers = prod(self._shape)
        self._plans = [_plan(step, num_rows, ranks, images.device) for step in batches]
        self._coming: tuple[int, Arrival] | None = None

    def read(self, step: int, then: int) -> tuple[Tensor, ...]:
        """The rows that this rank trains on in ``step``; starts to fetch those of ``then``."""
        number, arrival = self._coming or (step, self._fetch(step))
        if number != step:
            raise RuntimeError(f"student step {number} was announced, {step} is read")
        rows = arrival()[self._plans[step].place]
        self._coming = None if then == step else (then, self._fetch(then))
        return self._split(rows)

    def add(self, step: int, *slopes: Tensor | None) -> None:
        """Send gradients to the ranks that keep the rows, and add those that come."""
        plan, (images, labels) = self._plans[step], slopes
        assert images is not None and labels is not None  # both are numbers with a gradient
        together = torch.cat([images.flatten(1), labels], 1)
        rows = torch.empty_like(together)
        rows[plan.place] = together
        self.gradients.add(plan.sent, *self._split(self._ranks.exchange(rows, plan.num_received, plan.num_sent)()))

    def _fetch(self, step: int) -> Arrival:
        plan = self._plans[step]
        # Images and labels side by side, so that one message carries both.
        rows = torch.cat([self._images[plan.sent].flatten(1), self._labels[plan.sent]], 1)
        return self._ranks.exchange(rows, plan.num_sent, plan.num_received)

    def _split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        images = rows[:, : self._numbers].unflatten(1, self._shape)
        return images.contiguous(), rows[:, self._numbers :].contiguous()


def _plan(batches: Sequence[Tensor], num_rows: int, ranks: Ranks, device: torch.device) -> _Plan:
    layout = ranks.layout
    edges = torch.tensor([span(num_rows, layout.num_ranks, r)[1] for r in range(layout.num_ranks)])
    first, last = layout.kept(num_rows)
    wanted = [batch[(batch >= first) & (batch < last)] - first for batch in batches]
    own = batches[layout.rank]
    owner = torch.bucketize(own, edges, right=True)
    # Stable, so that rows from one rank arrive in the order of the batch, as that rank sends them.
    order = owner.argsort(stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(own))
    num_received = torch.bincount(owner, minlength=layout.num_ranks).tolist()
    return _Plan(torch.cat(wanted).to(device), [len(w) for w in wanted], num_received, place.to(device))
