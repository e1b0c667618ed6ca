"""Collectives between ranks by torch.distributed, counted."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from distributed_dd.unroll.layout import Layout
from distributed_dd.unroll.ranks import Arrival


class TorchRanks:
    """The ranks of an initialised process group, as a grid of groups.

    Attributes:
        calls, num_bytes: per kind of collective, how often it was called on this rank, and the bytes that
            this rank handed to it. What a link carries follows from it: a ring all-reduce of B bytes over
            W ranks sends 2 (W - 1) / W of B from every rank.
    """

    def __init__(self, num_groups: int) -> None:
        self.layout = Layout(dist.get_rank(), dist.get_world_size(), num_groups)
        self.calls: Counter[str] = Counter()
        self.num_bytes: Counter[str] = Counter()
        size = self.layout.group_size
        # Every rank has to make every group.
        groups: list[Any] = [dist.new_group(range(g * size, (g + 1) * size)) for g in range(num_groups)]
        self._group = groups[self.layout.group]
        # Process groups of their own for rows and stored parameters, which are sent while sums are awaited.
        self._ahead: Any = dist.new_group(range(self.layout.num_ranks))
        ahead: list[Any] = [dist.new_group(range(g * size, (g + 1) * size)) for g in range(num_groups)]
        self._group_ahead = ahead[self.layout.group]

    def sum_in_group(self, part: Tensor) -> Tensor:
        """All-reduce over the group; ``part`` is used up."""
        if self.layout.group_size > 1:
            self._count("sum in group", part)
            dist.all_reduce(part, group=self._group)
        return part

    def sum(self, part: Tensor) -> Tensor:
        """All-reduce over all ranks; ``part`` is used up."""
        self._count("sum", part)
        dist.all_reduce(part)
        return part

    def first_of_group(self, value: Tensor) -> Tensor:
        """Broadcast from the group's first rank."""
        if self.layout.group_size > 1:
            self._count("broadcast", value)
            value = value.clone()
            dist.broadcast(value, self.layout.group * self.layout.group_size, group=self._group)
        return value

    def gather_in_group(self, part: Tensor) -> Arrival:
        """All-gather over the group, under way when this returns."""
        self._count("gather in group", part)
        size = self.layout.group_size
        parts = torch.empty(size, len(part), dtype=part.dtype, device=part.device)
        work: Any = dist.all_gather(list(parts.unbind()), part, group=self._group_ahead, async_op=True)

        def arrive(kept: Tensor = part) -> Tensor:  # what is sent must live until it is there
            work.wait()
            return parts

        return arrive

    def exchange(self, rows: Tensor, num_sent: Sequence[int], num_received: Sequence[int]) -> Arrival:
        """All-to-all of rows, under way when this returns."""
        own = self.layout.rank
        moved = sum(num_sent) - num_sent[own]
        self.calls["rows"] += 1
        self.num_bytes["rows"] += moved * rows[:1].nbytes
        received = torch.empty(sum(num_received), *rows.shape[1:], dtype=rows.dtype, device=rows.device)
        rows = rows.contiguous()
        sizes = list(num_received), list(num_sent)
        work: Any = dist.all_to_all_single(received, rows, *sizes, group=self._ahead, async_op=True)

        def arrive(kept: Tensor = rows) -> Tensor:
            work.wait()
            return received

        return arrive

    def _count(self, kind: str, tensor: Tensor) -> None:
        self.calls[kind] += 1
        self.num_bytes[kind] += tensor.nbytes
