"""Bytes of a rank against the number of ranks, counted: what sharding is for."""

import pytest

from distributed_dd.backends.deepspeed.zero import Zero
from distributed_dd.bench import sharded
from distributed_dd.learning.networks import ConvNet, ResNet18

SET_IMAGES = 400
SET_BYTES = SET_IMAGES * (3 * 32 * 32 + 10) * 4


def largest(answers, name):
    return max(answer[name] for answer in answers)


@pytest.mark.parametrize("num_ranks", [1, 2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("zero", "idle", "peak"), [(Zero(3), 4, 7), (Zero(0, own_rows=True), 2, 5)], ids=["zero3", "own_rows"]
)
def test_what_a_rank_holds_of_the_set_falls_with_the_ranks(gangs, tmp_path, num_ranks, zero, idle, peak):
    """In units of the set: parameters, masters, momenta, gradients; then what is read, and one block."""
    shards = sharded._random_set(tmp_path, SET_IMAGES)
    answers = gangs(num_ranks).call(sharded.set_memory, zero, tmp_path, shards)
    assert largest(answers, "idle_bytes") <= (idle / num_ranks + 0.12) * SET_BYTES
    assert largest(answers, "peak_bytes") <= (peak / num_ranks + 0.25) * SET_BYTES


def test_activations_fall_with_the_ranks_that_share_a_batch(gangs, tmp_path):
    """A set of one batch and few small parameters: nearly all is the graph of a student step."""
    size = sharded.Size(name="activations", network=ConvNet(depth=2, width=8), num_images=40, steps=2, batch=40)
    shards = sharded._random_set(tmp_path, size.num_images)
    peaks = {}
    for num_ranks in (1, 2, 4):
        zero = Zero(0, own_rows=True)
        answers = gangs(num_ranks).call(sharded.outer_step, zero, tmp_path, shards, size, 1)
        peaks[num_ranks] = largest(answers, "peak_bytes")
    assert peaks[2] <= 0.56 * peaks[1] and peaks[4] <= 0.31 * peaks[1], peaks


def test_a_resnet18_over_80_steps_spreads_what_it_stores(gangs, tmp_path):
    """Half of 80 parameter vectors less on each of two ranks, and the same learning rate after the update."""
    size = sharded.Size(name="deep", network=ResNet18(width=2), num_images=10, steps=80, batch=2)
    shards = sharded._random_set(tmp_path, size.num_images)
    vectors = size.steps * sharded._described(size)["num_parameters"] * 4
    peaks = {
        place: gangs(2).call(sharded.stored_bytes, place, tmp_path, shards, size) for place in ("device", "spread")
    }
    saved = largest(peaks["device"], "peak_bytes") - largest(peaks["spread"], "peak_bytes")
    assert 0.4 * vectors <= saved <= 0.55 * vectors
    told = {answer["learning_rate"] for answers in peaks.values() for answer in answers}
    assert told not in ({0.01}, {1e-6}), "the rate must have moved, and not to its floor"
    assert len(told) == 1, "the stored parameters come back with the bits they had"
