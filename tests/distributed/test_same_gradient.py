"""Ranks compute the gradient of one process: every split, with augmentation, uneven batches, in float64."""

import pytest
import torch

from distributed_dd.outer.checkpoint import Checkpoints
from distributed_dd.unroll import Alone, Detached, Direct, OnDevice, Replayed, Spread
from tests.references import small_job

GRIDS = [(1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (4, 4)]


def worker_of(ranks, folder, parted, spread, **settings):
    """A worker of one rank, and its tools, which catch the gradient."""
    checkpoints = Checkpoints(folder, "config")
    layout = ranks.layout
    saved = checkpoints.saved([small_job.first_shard(folder, layout.rank, layout.num_ranks)])
    caught = small_job.Caught(ranks, parted, torch.float64, (lambda: Spread(ranks)) if spread else OnDevice)
    return small_job.job(checkpoints, torch.float64, **settings).worker(saved, caught), caught


def gradient_of(ranks, folder, parted, spread, unroll):
    """Metrics and whole gradient of outer step 0."""
    worker, caught = worker_of(ranks, folder, parted, spread, unroll=unroll)
    return worker.outer_step(0), caught.whole


def in_rank(rank, num_groups, *given):
    torch.set_num_threads(1)
    return gradient_of(small_job.ranks_of(rank, num_groups), *given)


@pytest.mark.parametrize(("num_ranks", "num_groups"), GRIDS)
@pytest.mark.parametrize("parted", [False, True], ids=["whole", "parted"])
def test_equals_the_direct_unroll_of_one_process(gangs, tmp_path, num_ranks, num_groups, parted):
    """Catches a mean for a sum, a share of the wrong batch, rows sent to the wrong rank, a wrong draw."""
    expected, reference = gradient_of(Alone(), tmp_path, False, False, Direct())
    answers = gangs(num_ranks).call(in_rank, num_groups, tmp_path, parted, True, Replayed())
    for metrics, whole in answers:
        for name in ("matching_loss", "start_epoch", "accepted"):
            assert metrics[name] == pytest.approx(expected[name], rel=1e-12)
        for name, value in reference.items():
            assert (whole[name] - value).norm() <= 1e-11 * value.norm(), name


def test_the_biased_unroll_is_biased_alike(gangs, tmp_path):
    """`detached` reproduces a paper: over ranks it must be wrong in exactly the same way."""
    _, reference = gradient_of(Alone(), tmp_path, False, False, Detached())
    for _, whole in gangs(2).call(in_rank, 1, tmp_path, True, False, Detached()):
        for name, value in reference.items():
            assert (whole[name] - value).norm() <= 1e-11 * value.norm(), name


def test_rank_parts_add_up_and_are_not_averaged(gangs, tmp_path):
    """The trap of autograd through collectives: means where sums are wanted, a factor of the rank count."""
    _, one = gradient_of(Alone(), tmp_path, False, False, Replayed())
    _, four = gangs(4).call(in_rank, 1, tmp_path, False, False, Replayed())[0]
    for name, value in one.items():
        ratio = float((four[name] * value).sum() / value.square().sum())
        assert ratio == pytest.approx(1.0, abs=1e-10), f"{name} is off by {ratio:.3g}"


def counted(rank, folder):
    """Collectives of one outer step of one segment."""
    ranks = small_job.ranks_of(rank, 1)
    ranks.calls.clear()
    ranks.num_bytes.clear()
    worker, _ = worker_of(ranks, folder, True, True, segments_per_outer_step=1)
    worker.outer_step(0)
    return dict(ranks.calls), dict(ranks.num_bytes), worker.steps.student.num_parameters


def test_communication_is_two_vectors_a_student_step(gangs, tmp_path):
    """N sums of g, N - 1 of the Hessian-vector product (the first step needs none), as documented."""
    steps = small_job.method().student_steps
    for calls, num_bytes, size in gangs(2).call(counted, tmp_path):
        assert calls["sum in group"] == 2 * steps - 1
        assert num_bytes["sum in group"] == (2 * steps - 1) * size * 8
        assert calls["gather in group"] == steps and calls["rows"] == 3 * steps
        row = (64 + small_job.NUM_CLASSES) * 8
        assert num_bytes["rows"] <= 3 * steps * small_job.BATCH * row
