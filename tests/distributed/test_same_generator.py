"""A generator distilled over ranks: the gradients of one process, and the same Adam at every ZeRO stage."""

import pytest
import torch

from distributed_dd.backends.deepspeed.learner import DeepSpeedLearner
from distributed_dd.backends.deepspeed.zero import Zero
from distributed_dd.backends.local.learner import LocalLearner
from distributed_dd.learning.chance import generator
from distributed_dd.learning.networks.batch_norm import batch_norms
from distributed_dd.learning.update_rules import Adam
from distributed_dd.methods.generative.pool import Span, train_span
from distributed_dd.outer.checkpoint import Checkpoints
from distributed_dd.unroll import Alone, span
from tests.references import small_gan, small_job

STAGES = [Zero(0), Zero(1), Zero(2), Zero(3), Zero(2, offload="momenta")]
NAMES = ["zero0", "zero1", "zero2", "zero3", "zero2_offload"]
# Measured over all cases: 2e-7 at most, relative to the largest entry.
ROUNDING = 2e-6
NUM_PARAMETERS, NUM_UPDATES = 1001, 4  # divides by no number of ranks
THETA = "generator.theta"
RULES = {THETA: Adam(0.01, 0.5, 0.9)}


def outer_step(ranks, checkpoints):
    """The gradients of both networks in one outer step in float64, and what it measured."""
    job = small_gan.job(checkpoints)
    saved = checkpoints.saved([checkpoints.write_shard(0, ranks.layout.rank, 9, 0, job.starting())])
    caught = small_gan.Caught(ranks)
    worker = job.worker(saved, caught)
    prepared, _ = train_span(Span(0, 0, 2), None, job.pool)
    return worker.outer_step(1, prepared), caught.gradients


def in_rank(rank, folder):
    torch.set_num_threads(1)
    ranks = small_job.ranks_of(rank, 1)
    before = ranks.calls["sum"]
    found = outer_step(ranks, Checkpoints(folder, "config"))
    return *found, ranks.calls["sum"] - before


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_ranks_have_the_gradients_of_one_process(gangs, tmp_path, num_ranks):
    """Batch norm of the generator, mean features, sums and means of losses: all over the whole batch."""
    metrics, expected = outer_step(Alone(), Checkpoints(tmp_path / "alone", "config"))
    assert metrics["generator_local"] > 0 and metrics["generator_global"] > 0
    num_norms = len(batch_norms(small_gan.layers()))
    for measured, gradients, num_sums in gangs(num_ranks).call(in_rank, tmp_path / "ranks"):
        # Statistics forward twice and back once, features there and back, losses twice; two are this test's.
        assert num_sums == 3 * 2 * num_norms + 2 + 2 + 2
        assert measured == pytest.approx(metrics, rel=1e-9)
        for name, gradient in expected.items():
            scale = gradient.abs().max()
            assert (gradients[name] - gradient).abs().max() <= 1e-9 * scale, name


def state():
    """A network and Adam after some updates."""
    rng = generator(0, "network")
    theta = torch.randn(NUM_PARAMETERS, generator=rng)
    mean, square = torch.randn(NUM_PARAMETERS, generator=rng), torch.rand(NUM_PARAMETERS, generator=rng)
    found = {"theta": theta, "mean": mean, "square": square, "updates": torch.tensor(7.0)}
    return {f"generator.{name}": value for name, value in found.items()}


def gradient(update, part=(0, 1)):
    """The gradient of an update, or a part of it: parts add up."""
    whole = torch.randn(NUM_PARAMETERS, 5, generator=generator(0, "gradient", update))
    first, last = span(5, part[1], part[0])
    return whole[:, first:last].sum(1)


def updated(rank, zero, folder, start, num_updates):
    torch.set_num_threads(1)
    ranks, checkpoints = small_job.ranks_of(rank, 1), Checkpoints(folder, "config")
    saved = checkpoints.saved([checkpoints.write_shard(0, ranks.layout.rank, 9, 0, start)])
    learner = DeepSpeedLearner(zero, ranks, saved, RULES)
    for update in range(num_updates):
        learner.read()  # a network is also read where it is not updated
        learner.step({THETA: gradient(update, (ranks.layout.rank, ranks.layout.num_ranks))})
    found, read = everything(learner), learner.read().tensors[THETA]
    learner.close()
    return {name: value.cpu() for name, value in found.items()}, read.cpu()


def everything(learner):
    """What a checkpoint keeps of a network."""
    return learner.kept() | learner.slots()


@pytest.mark.parametrize(
    ("num_ranks", "zero"), [(1, Zero(3)), *((2, zero) for zero in STAGES), (4, Zero(2)), (4, Zero(3))]
)
def test_adam_is_that_of_one_process(gangs, tmp_path, num_ranks, zero):
    """Catches averaged gradients, clipping, a lost count of updates, state that was not taken over."""
    checkpoints = Checkpoints(tmp_path, "config")
    local = LocalLearner(checkpoints.saved([checkpoints.write_shard(0, 8, 9, 0, state())]), RULES)
    for update in range(NUM_UPDATES):
        local.step({THETA: gradient(update)})
    expected = everything(local)
    assert expected.keys() == state().keys() and float(expected["generator.updates"]) == 11
    for found, read in gangs(num_ranks).call(updated, zero, tmp_path, state(), NUM_UPDATES):
        assert torch.equal(read, found[THETA])
        for name, value in expected.items():
            assert (found[name] - value).abs().max() <= ROUNDING * value.abs().max(), name


@pytest.mark.parametrize("zero", STAGES[1:4], ids=NAMES[1:4])
def test_what_ranks_keep_one_process_goes_on_from(gangs, tmp_path, zero):
    """The state of ranks is whole: saved after two updates and carried on alone it is the same network."""
    ((halfway, _), _) = gangs(2).call(updated, zero, tmp_path, state(), 2)
    checkpoints = Checkpoints(tmp_path / "alone", "config")

    def through(start, first):
        learner = LocalLearner(checkpoints.saved([checkpoints.write_shard(0, 0, 1, 0, start)]), RULES)
        for update in range(first, NUM_UPDATES):
            learner.step({THETA: gradient(update)})
        return everything(learner)

    expected, found = through(state(), 0), through(halfway, 2)
    for name, value in expected.items():
        assert (found[name] - value).abs().max() <= ROUNDING * value.abs().max(), name
