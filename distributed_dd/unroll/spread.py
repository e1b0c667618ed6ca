"""Stored parameters of an unroll, spread over the ranks that share it."""

from math import ceil

import torch
from torch import Tensor

from distributed_dd.unroll.ranks import Arrival, Ranks


class Spread:
    """Each rank of a group keeps 1 / group_size of every theta; they are gathered one step ahead of use."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._parts: list[Tensor] = []
        self._coming: Arrival | None = None
        self._size = 0

    def push(self, theta_P: Tensor) -> None:
        """Keep this rank's part, the last one filled up with zeros."""
        layout = self._ranks.layout
        self._size = len(theta_P)
        length = ceil(self._size / layout.group_size)
        own = theta_P[layout.place * length : (layout.place + 1) * length]
        part = torch.zeros(length, dtype=theta_P.dtype, device=theta_P.device)
        part[: len(own)] = own
        self._parts.append(part)

    def pop(self) -> Tensor:
        """The newest, whole; starts to gather the one below it."""
        arrival = self._coming or self._fetch()
        self._coming = None
        theta = arrival().flatten()[: self._size]
        if self._parts:
            self._coming = self._fetch()
        return theta

    def _fetch(self) -> Arrival:
        return self._ranks.gather_in_group(self._parts.pop())
