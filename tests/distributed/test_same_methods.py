"""Methods that compare statistics, under DeepSpeed: the set and the state of one process, in float32.

Their gradients in float64, on every way of dividing them, are in tests/contracts, on ranks that meet in one process.
"""

from functools import cache

import pytest
import torch

from distributed_dd.backends.deepspeed.tools import DeepSpeedTools
from distributed_dd.backends.deepspeed.zero import Zero
from distributed_dd.learning.update_rules import is_by_row
from distributed_dd.outer.checkpoint import Checkpoints
from tests.contracts import small_worlds
from tests.references import small_job

# The second one's network learns from the set within a turn of three outer steps; that of the third for as long as
# accuracies say, and its images have a share of their rate; the fourth one's pool learns in all of them. That has no
# biases before an instance norm: their gradient is rounding alone, of which Adam makes whole steps.
POINTS = ("dm", "dsa", "cafe_watched", "frepo_mirrored")
STATES = {"dsa": "state.network", "cafe_watched": "state.network", "frepo_mirrored": "state.pool.theta"}
NUM_STEPS = 4
STAGES = {"zero0": Zero(0), "zero3": Zero(3), "own_rows": Zero(0, own_rows=True)}
# Relative to the largest entry of each tensor; a nearly singular kernel multiplies what float32 rounds.
ROUNDING = {"dm": 3e-6, "dsa": 3e-6, "cafe_watched": 3e-6, "frepo_mirrored": 3e-5}

EVERY_POINT = pytest.mark.parametrize("point", POINTS)
EVERY_STAGE = pytest.mark.parametrize("zero", STAGES.values(), ids=STAGES)


@pytest.fixture(scope="module")
def world_of(tmp_path_factory):
    """Point -> its method, its world on a smooth network, as ranks are told of it, and the set at the start."""
    folder = tmp_path_factory.mktemp("small")

    @cache
    def known(point):
        whole = small_worlds.made(point, folder)
        return whole.method, small_worlds.smooth(whole.world), whole.product.starting()

    return known


def begun(world_of, point, folder):
    """A job whose checkpoint 0 is written, and its shards."""
    method, world, starting = world_of(point)
    checkpoints = Checkpoints(folder, "small")
    return method.job(world, checkpoints), [checkpoints.write_shard(0, 0, 1, 0, starting)]


@pytest.fixture(scope="module")
def of_one_process(world_of, tmp_path_factory):
    """Point -> what one process has after all steps, and what each measured."""

    @cache
    def known(point):
        job, shards = begun(world_of, point, tmp_path_factory.mktemp(point))
        small_worlds.commit(job.checkpoints, 0, *shards)
        workers = small_worlds.working(job)
        metrics = list(workers.outer_steps(0, NUM_STEPS))
        return everything(job.checkpoints, workers.save(NUM_STEPS)), metrics

    return known


def everything(checkpoints, shards):
    """All that shards keep, whole, by name."""
    saved = checkpoints.saved(shards)
    return {n: saved.rows(n, 0, saved.num_rows) if is_by_row(n) else saved.value(n) for n in saved.names()}


def in_rank(rank, zero, job, shards, steps):
    """On every rank: what the steps measured, and the shard that is written after them."""
    torch.set_num_threads(1)
    tools = DeepSpeedTools(zero, "device", small_job.ranks_of(rank, 1))
    worker = job.worker(job.checkpoints.saved(shards), tools)
    metrics = [worker.outer_step(step, None) for step in steps]
    shard = worker.save(steps[-1] + 1)
    tools.close()
    return metrics, shard


def through(gangs, num_ranks, zero, job, shards, steps=range(NUM_STEPS)):
    """Metrics of every rank, and all shards."""
    answers = gangs(num_ranks).call(in_rank, zero, job, shards, steps)
    return [metrics for metrics, _ in answers], [shard for _, shard in answers]


@EVERY_STAGE
@EVERY_POINT
@pytest.mark.parametrize("num_ranks", [2, 4])
def test_outer_steps_give_the_set_and_the_state_of_one_process(
    gangs, tmp_path, world_of, of_one_process, num_ranks, point, zero
):
    """Two ranks take whole classes or rows, four more than there are classes; catches networks that drift apart."""
    expected, measured = of_one_process(point)
    job, shards = begun(world_of, point, tmp_path)
    metrics, written = through(gangs, num_ranks, zero, job, shards)
    found = everything(job.checkpoints, written)
    assert found.keys() == expected.keys() and (STATES.get(point) in found) == (point != "dm")
    for name, value in expected.items():
        assert (found[name].double() - value.double()).abs().max() <= ROUNDING[point] * value.double().abs().max(), name
    assert all(told == metrics[0] for told in metrics), "all ranks tell the same"
    for mine, theirs in zip(metrics[0], measured, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5)


@EVERY_STAGE
@EVERY_POINT
def test_a_gang_that_goes_on_within_a_turn_ends_with_the_same_bits(gangs, tmp_path, world_of, point, zero):
    """Cut after two outer steps, where the network has learned from the set twice: the state is that of all ranks."""
    whole, shards = begun(world_of, point, tmp_path / "whole")
    _, through_all = through(gangs, 2, zero, whole, shards)
    cut, shards = begun(world_of, point, tmp_path / "cut")
    _, half = through(gangs, 2, zero, cut, shards, range(2))
    _, resumed = through(gangs, 2, zero, cut, half, range(2, NUM_STEPS))
    expected, found = everything(whole.checkpoints, through_all), everything(cut.checkpoints, resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@EVERY_STAGE
def test_frozen_rows_keep_their_bits_and_only_they(gangs, tmp_path, world_of, zero):
    """Catches an engine that updates by parts of the set, and rows that are counted from a rank's own first."""
    _, world, starting = world_of("dm_frozen")
    job, shards = begun(world_of, "dm_frozen", tmp_path)
    _, written = through(gangs, 2, zero, job, shards)
    images = everything(job.checkpoints, written)["images"]
    same = (images == starting["images"]).flatten(1).all(1)
    assert same.tolist() == [i % world.images_per_class == 0 for i in range(world.num_images)]
