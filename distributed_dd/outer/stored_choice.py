"""Where the stored parameters of an unroll wait: chosen by what fits."""

from collections.abc import Callable
from typing import Literal

import torch

from distributed_dd.learning.device import device
from distributed_dd.outer.footprint import memory_for_a_process
from distributed_dd.unroll import OnDevice, OnHost, Ranks, Spread, Stored

Place = Literal["auto", "device", "spread", "host"]
FLOAT, FRACTION = 4, 0.25


def stored_bytes(num_parameters: int, num_steps: int) -> int:
    """Bytes of theta_0 .. theta_{N-1}."""
    return num_parameters * num_steps * FLOAT


def fitting(needed: int, group_size: int, memory: int, on_gpu: bool) -> Place:
    """The first of device, spread over the group, host that takes at most a quarter of ``memory``.

    Without a GPU the host is the device; then the largest group is the best that can be done.
    """
    if needed <= FRACTION * memory:
        return "device"
    if group_size > 1 and (needed / group_size <= FRACTION * memory or not on_gpu):
        return "spread"
    return "host" if on_gpu else "device"


def stored_in(place: Place, num_parameters: int, num_steps: int, ranks: Ranks) -> Callable[[], Stored]:
    """A factory of the place for one unroll; every rank comes to the same answer."""
    if place == "auto":
        # The smallest memory among the ranks decides: spreading takes all of them.
        memory = -_largest(ranks, -memory_for_a_process(ranks.layout.num_ranks))
        on_gpu = device().type == "cuda"
        needed = stored_bytes(num_parameters, num_steps)
        place = fitting(needed, ranks.layout.group_size, memory, on_gpu)
    places: dict[Place, Callable[[], Stored]] = {"device": OnDevice, "host": OnHost, "spread": lambda: Spread(ranks)}
    return places[place]


def _largest(ranks: Ranks, value: int) -> int:
    values = torch.zeros(ranks.layout.num_ranks, dtype=torch.float64)
    values[ranks.layout.rank] = value
    return int(ranks.sum(values.to(device())).max())
