"""What ranks keep of each other, and which step survivors can bring together."""

from collections import deque

import pytest

from distributed_dd.outer.checkpoint import Packed
from distributed_dd.outer.spares import GENERATIONS, Spare, Spares, newest_of_all, peer_of


def spare(step, num_bytes=10):
    return Spare(step, Packed(f"step-{step}", b"x" * num_bytes, 0, 1), ((step, {"loss": 1.0}),))


def test_two_generations_of_a_rank_and_of_its_peer_are_held_and_no_byte_more():
    spares = Spares()
    for step in range(1, 30):
        for rank in (0, 1):
            spares.keep(rank, spare(step, num_bytes=100))
            assert spares.num_bytes <= 2 * GENERATIONS * 100
    assert spares.steps() == {0: [28, 29], 1: [28, 29]} and spares.num_bytes == 400
    assert spares.of(0, 28) == spare(28, 100) and spares.of(0, 27) is None and spares.of(5, 1) is None
    spares.clear()
    assert spares.num_bytes == 0 and spares.steps() == {}


@pytest.mark.parametrize("num_ranks", range(2, 17))
def test_every_rank_keeps_the_spares_of_exactly_one_other(num_ranks):
    peers = [peer_of(rank, num_ranks) for rank in range(num_ranks)]
    assert sorted(peers) == list(range(num_ranks)) and all(peer != rank for rank, peer in enumerate(peers))


def test_ranks_of_a_node_have_their_spares_on_another():
    """Eight ranks, four on each of two nodes."""
    assert all(peer_of(rank, 8) // 4 != rank // 4 for rank in range(8))


@pytest.mark.parametrize(
    ("held", "steps"),
    [
        ([{0: [3, 4], 1: [3, 4]}, {1: [3, 4], 0: [3, 4]}], [4, 3]),
        ([{0: [3, 4], 1: [3]}], [3]),  # rank 1 died before it handed over the fourth
        ([{0: [3, 4]}], []),  # and its peer with it
        ([{0: [4, 5], 1: [2, 3]}], []),
        ([], []),
    ],
)
def test_survivors_go_on_from_the_newest_step_that_is_whole(held, steps):
    assert newest_of_all(held, 2) == steps


def test_handing_over_takes_a_tenth_of_the_time_at_most():
    spares = Spares()
    assert spares.affordable_every() == 1, "nothing is known yet"
    spares.durations = {"step": deque([2.0, 2.0, 9.0]), "hand over": deque([0.1])}
    assert spares.affordable_every() == 1
    spares.durations["hand over"].extend([1.0, 1.0])
    assert spares.affordable_every() == 5
