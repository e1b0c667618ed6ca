"""Five outer steps under DeepSpeed equal five of one process with the direct unroll, at every ZeRO stage."""

import pytest
import torch

from distributed_dd.backends.deepspeed.tools import DeepSpeedTools
from distributed_dd.backends.deepspeed.zero import Zero
from distributed_dd.backends.local.engine import Local, LocalTools
from distributed_dd.outer.checkpoint import Checkpoints
from distributed_dd.unroll import Direct, Replayed
from tests.references import small_job
from tests.references.small_job import first_shard

NUM_STEPS = 5
# Measured over all cases: 4e-7 at most, relative to the largest entry of each tensor.
ROUNDING = 3e-6
STAGES = [
    Zero(0),
    Zero(1),
    Zero(2),
    Zero(3),
    Zero(0, own_rows=True),
    Zero(2, offload="momenta"),
    Zero(3, offload="all"),
]
NAMES = ["zero0", "zero1", "zero2", "zero3", "own_rows", "zero2_offload", "zero3_offload"]
LEARNED = ("images", "labels", "learning_rate")


def alone(folder, shards, steps, unroll=None, **settings):
    """The worker of one process after some outer steps, and what they measured."""
    checkpoints = Checkpoints(folder, "config")
    job = small_job.job(checkpoints, unroll=unroll or Direct(), **settings)
    worker = job.worker(checkpoints.saved(shards), LocalTools(Local(stored="device")))
    return worker, [worker.outer_step(step) for step in steps]


def in_rank(rank, num_groups, zero, folder, shards, steps, save_at=None, settings=None):
    """On every rank: what the steps measured, and the shard that is written after them."""
    torch.set_num_threads(1)
    ranks, checkpoints = small_job.ranks_of(rank, num_groups), Checkpoints(folder, "config")
    tools = DeepSpeedTools(zero, "spread", ranks)
    job = small_job.job(checkpoints, unroll=Replayed(), **(settings or {}))
    worker = job.worker(checkpoints.saved(shards), tools)
    metrics = [worker.outer_step(step) for step in steps]
    shard = None if save_at is None else worker.save(save_at)
    tools.close()
    return metrics, shard


def after(folder, shards):
    """Everything that shards keep, whole, by name."""
    saved = Checkpoints(folder, "config").saved(shards)
    return {
        name: saved.value(name) if name.endswith("learning_rate") else saved.rows(name, 0, saved.num_rows)
        for name in saved.names()
    }


def largest_difference(given, expected):
    """Over all tensors, relative to the largest entry of each."""
    assert given.keys() == expected.keys()
    return max(
        float((given[name].double() - value.double()).abs().max() / value.double().abs().max())
        for name, value in expected.items()
    )


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The set and momenta of one process after five steps; what each step measured."""
    folder = tmp_path_factory.mktemp("reference")
    worker, metrics = alone(folder, [first_shard(folder)], range(NUM_STEPS))
    return after(folder, [worker.save(NUM_STEPS)]), metrics


def _every_grid_and_stage():
    """All of them; quick are every stage with a divided batch, and every grid at the two ends of sharding."""
    for grid in [(1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (4, 4)]:
        for name, zero in zip(NAMES, STAGES, strict=True):
            quick = grid == (2, 1) or name in ("zero0", "own_rows")
            yield pytest.param(*grid, zero, id=f"{name}-{grid[0]}-{grid[1]}", marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("num_ranks", "num_groups", "zero"), _every_grid_and_stage())
def test_five_outer_steps_give_the_same_set(gangs, tmp_path, reference, num_ranks, num_groups, zero):
    """Catches clipped, averaged, stale or misaligned gradients, and momenta that went astray."""
    expected, measured = reference
    shards = [first_shard(tmp_path)]
    answers = gangs(num_ranks).call(in_rank, num_groups, zero, tmp_path, shards, range(NUM_STEPS), 5)
    found = after(tmp_path, [shard for _, shard in answers])
    assert largest_difference(found, expected) <= ROUNDING
    for metrics, _ in answers:
        for mine, theirs in zip(metrics, measured, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("zero", STAGES[:5], ids=NAMES[:5])
def test_going_on_with_as_many_ranks_is_bit_identical(gangs, tmp_path, zero):
    whole, two = tmp_path / "whole", tmp_path / "two"
    answers = gangs(2).call(in_rank, 1, zero, whole, [first_shard(whole)], range(4), 4)
    halfway = gangs(2).call(in_rank, 1, zero, two, [first_shard(two)], range(2), 2)
    resumed = gangs(2).call(in_rank, 1, zero, two, [s for _, s in halfway], range(2, 4), 4)
    through, again = after(whole, [s for _, s in answers]), after(two, [s for _, s in resumed])
    assert through.keys() == again.keys()
    assert all(torch.equal(through[name], again[name]) for name in through)


@pytest.mark.parametrize(("before", "then"), [(2, 1), (1, 2), (2, 4), (4, 2)])
@pytest.mark.parametrize("zero", [Zero(1), Zero(3), Zero(0, own_rows=True)], ids=["zero1", "zero3", "own_rows"])
def test_going_on_with_other_ranks_is_the_same_to_rounding(gangs, tmp_path, reference, zero, before, then):
    """15 rows divide by neither 2 nor 4: catches shards that were cut at another place than read."""
    halfway = gangs(before).call(in_rank, 1, zero, tmp_path, [first_shard(tmp_path)], range(2), 2)
    resumed = gangs(then).call(in_rank, 1, zero, tmp_path, [s for _, s in halfway], range(2, 5), 5)
    assert largest_difference(after(tmp_path, [s for _, s in resumed]), reference[0]) <= ROUNDING


def test_ranks_go_on_where_one_process_stopped_and_the_other_way_round(gangs, tmp_path, reference):
    worker, _ = alone(tmp_path, [first_shard(tmp_path)], range(2))
    half = worker.save(2)
    answers = gangs(2).call(in_rank, 1, Zero(3), tmp_path, [half], range(2, 4), 4)
    worker, _ = alone(tmp_path, [shard for _, shard in answers], range(4, 5))
    assert largest_difference(after(tmp_path, [worker.save(5)]), reference[0]) <= ROUNDING


@pytest.mark.parametrize("zero", STAGES[:5], ids=NAMES[:5])
def test_the_gate_leaves_out_the_same_segments_on_all_ranks(gangs, tmp_path, zero):
    """A gate in the midst of the losses: some segments count, in the first step none."""
    folder = tmp_path / "alone"
    _, open_gate = alone(folder, [first_shard(folder)], range(3), segments_per_outer_step=2)
    settings = {"gate": sorted(m["matching_loss"] for m in open_gate)[1], "segments_per_outer_step": 2}
    worker, expected = alone(folder, [first_shard(folder)], range(4), **settings)
    assert len({m["accepted"] for m in expected}) > 1, "the gate must matter here"
    shards = [first_shard(tmp_path)]
    answers = gangs(2).call(in_rank, 2, zero, tmp_path, shards, range(4), 4, settings)
    for metrics, _ in answers:
        assert [m["accepted"] for m in metrics] == [m["accepted"] for m in expected]
    found = after(tmp_path, [s for _, s in answers])
    assert largest_difference(found, after(folder, [worker.save(4)])) <= ROUNDING


@pytest.mark.parametrize("zero", [Zero(0), Zero(3), Zero(0, own_rows=True)], ids=["zero0", "zero3", "own_rows"])
def test_a_floor_of_the_learning_rate_and_an_average_are_the_same_on_ranks(gangs, tmp_path, zero):
    settings = {"student_learning_rate_min": 0.0999, "ema_decay": 0.8}
    folder = tmp_path / "alone"
    worker, expected = alone(folder, [first_shard(folder)], range(4), **settings)
    assert any(m["floored"] for m in expected), "the floor must matter here"
    answers = gangs(2).call(in_rank, 1, zero, tmp_path, [first_shard(tmp_path)], range(4), 4, settings)
    found, wanted = after(tmp_path, [s for _, s in answers]), after(folder, [worker.save(4)])
    assert {"average.images", "average.learning_rate"} <= found.keys()
    assert largest_difference(found, wanted) <= ROUNDING


def compiled(rank, folder, shards):
    """One outer step of compiled student steps after ZeRO 3 has set itself up in this process."""
    from torch.nn import functional

    from distributed_dd.unroll import Replayed

    linear = functional.linear
    settings = {"student_steps": 2, "batch_size": 15, "segments_per_outer_step": 1}
    ranks, checkpoints = small_job.ranks_of(rank, 1), Checkpoints(folder, "config")
    tools = DeepSpeedTools(Zero(3), "device", ranks)
    job = small_job.job(checkpoints, unroll=Replayed(compile=True), **settings)
    worker = job.worker(checkpoints.saved(shards), tools)
    worker.outer_step(0)
    shard = worker.save(1)
    tools.close()
    return shard, functional.linear is linear


@pytest.mark.slow
def test_compiled_student_steps_keep_torchs_own_layers_under_zero3(gangs, tmp_path):
    """DeepSpeed replaces torch's linear by one whose compiled second derivatives are wrong by 40 %."""
    folder = tmp_path / "alone"
    settings = {"student_steps": 2, "batch_size": 15, "segments_per_outer_step": 1}
    worker, _ = alone(folder, [first_shard(folder)], range(1), **settings)
    answers = gangs(2).call(compiled, tmp_path, [first_shard(tmp_path)])
    assert all(untouched for _, untouched in answers)
    found = after(tmp_path, [shard for shard, _ in answers])
    assert largest_difference(found, after(folder, [worker.save(1)])) <= ROUNDING


def diverging(rank, zero, folder, shards):
    """What a rank says, and whether its set is as before, where one rank alone meets an infinite number."""
    from distributed_dd.errors import DivergedError

    ranks, checkpoints = small_job.ranks_of(rank, 2), Checkpoints(folder, "config")
    tools = DeepSpeedTools(zero, "device", ranks)
    job = small_job.job(checkpoints, segments_per_outer_step=2)
    worker = job.worker(checkpoints.saved(shards), tools)
    before = worker.learner.kept()
    match = worker.steps._match

    def broken(*given):
        found, renewed = match(*given)
        if ranks.layout.rank == 1:
            found.learning_rate.fill_(float("inf"))
        return found, renewed

    worker.steps._match = broken
    try:
        worker.outer_step(0)
    except DivergedError as error:
        after_it = worker.learner.kept()
        return str(error), all(torch.equal(before[name], after_it[name]) for name in LEARNED)
    return None


@pytest.mark.parametrize("zero", [Zero(0), Zero(3)], ids=["zero0", "zero3"])
def test_a_number_that_is_not_finite_on_one_rank_stops_all_before_the_update(gangs, tmp_path, zero):
    answers = gangs(2).call(diverging, zero, tmp_path, [first_shard(tmp_path)])
    assert answers[0] == answers[1], "all ranks say the same"
    assert "not finite" in answers[0][0] and answers[0][1]
