"""What the mathematics asks of the other ranks."""

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from distributed_dd.unroll.layout import Layout

Arrival = Callable[[], Tensor]
"""Waits for what other ranks sent, and returns it."""


class Ranks(Protocol):
    """Collectives over all ranks, or over the group of ranks that share a student batch.

    Every rank must call the same ones in the same order.
    """

    layout: Layout

    def sum_in_group(self, part: Tensor) -> Tensor:
        """The sum over the group of tensors of one shape."""
        ...

    def sum(self, part: Tensor) -> Tensor:
        """The sum over all ranks."""
        ...

    def first_of_group(self, value: Tensor) -> Tensor:
        """What the group's first rank has, so that all decide alike."""
        ...

    def gather_in_group(self, part: Tensor) -> Arrival:
        """The parts (m,) of all places of the group as (group_size, m)."""
        ...

    def exchange(self, rows: Tensor, num_sent: Sequence[int], num_received: Sequence[int]) -> Arrival:
        """Send ``num_sent[r]`` of ``rows`` to rank r, in order; receive ``num_received[r]`` rows from it."""
        ...


class Alone:
    """The only rank."""

    layout = Layout()

    def sum_in_group(self, part: Tensor) -> Tensor:
        """The part."""
        return part

    def sum(self, part: Tensor) -> Tensor:
        """The part."""
        return part

    def first_of_group(self, value: Tensor) -> Tensor:
        """The value."""
        return value

    def gather_in_group(self, part: Tensor) -> Arrival:
        """The part, as the only row."""
        return lambda: part.unsqueeze(0)

    def exchange(self, rows: Tensor, num_sent: Sequence[int], num_received: Sequence[int]) -> Arrival:
        """The rows."""
        return lambda: rows
