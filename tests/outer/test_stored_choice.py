"""Where an unroll keeps its parameters: what fits, alike on all ranks, and with the same bits."""

import pytest
import torch

from distributed_dd.outer.stored_choice import fitting, stored_bytes, stored_in
from distributed_dd.unroll import Alone, OnDevice, OnHost, Spread

GIB = 2**30


@pytest.mark.parametrize(
    ("needed", "group_size", "on_gpu", "place"),
    [
        (1, 1, True, "device"),
        (2, 1, True, "device"),
        (3, 1, True, "host"),
        (3, 1, False, "device"),  # the host is the device
        (3, 2, True, "spread"),
        (16, 4, True, "host"),
        (16, 8, True, "spread"),
        (16, 4, False, "spread"),
    ],
)
def test_a_quarter_of_eight_gibibytes_may_be_taken(needed, group_size, on_gpu, place):
    assert fitting(needed * GIB, group_size, 8 * GIB, on_gpu) == place


def test_the_estimate_counts_every_student_step():
    assert stored_bytes(11_173_962, 80) == 11_173_962 * 80 * 4


@pytest.mark.parametrize("place", ["auto", "device", "host", "spread"])
def test_what_was_pushed_last_comes_back_first_and_unchanged(place):
    stored = stored_in(place, 7, 5, Alone())()
    assert isinstance(stored, {"host": OnHost, "spread": Spread}.get(place, OnDevice))
    thetas = [torch.randn(7) for _ in range(5)]
    for theta in thetas:
        stored.push(theta.clone())
    for theta in reversed(thetas):
        assert torch.equal(stored.pop(), theta)
