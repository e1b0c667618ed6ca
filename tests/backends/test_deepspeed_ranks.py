"""How ranks divide a distillation: what they refuse, and what their estimate rests on."""

import json

import pytest
from torch import nn

from distributed_dd.backends.deepspeed_engine import Zero
from distributed_dd.backends.deepspeed_ranks import DeepSpeedRanks
from distributed_dd.bench.sharded import SHARDINGS
from distributed_dd.distillation.unroll import Direct
from distributed_dd.errors import ConfigError
from tests.conftest import ROOT
from tests.references import small_job

ROWS = small_job.NUM_ROWS
PLAIN = nn.Linear(1, 1)


def test_a_norm_over_the_batch_is_refused_where_ranks_share_one():
    """Also without running statistics, which alone a student could follow."""
    norm = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False))
    with pytest.raises(ConfigError, match="normalises over the batch") as caught:
        DeepSpeedRanks(2).check(small_job.method(), ROWS, norm)
    assert caught.value.where == "network" and "layer 1" in str(caught.value)
    DeepSpeedRanks(2, split="segments").check(small_job.method(), ROWS, norm)


def test_the_direct_unroll_goes_with_segments_of_a_whole_set_only():
    direct = small_job.method(unroll=Direct())
    DeepSpeedRanks(2, split="segments", zero=Zero(2)).check(direct, ROWS, PLAIN)
    for ranks in (
        DeepSpeedRanks(2),
        DeepSpeedRanks(2, split="segments", zero=Zero(3)),
        DeepSpeedRanks(2, split="segments", zero=Zero(own_rows=True)),
    ):
        with pytest.raises(ConfigError, match="replayed"):
            ranks.check(direct, ROWS, PLAIN)


@pytest.mark.parametrize(("num_ranks", "fits"), [(6, True), (7, False)])
def test_no_rank_may_be_left_without_a_row_of_the_smallest_batch(num_ranks, fits):
    """15 rows in batches of 9: the other batch has 6."""
    ranks = DeepSpeedRanks(num_ranks)
    if fits:
        ranks.check(small_job.method(), ROWS, PLAIN)
        return
    with pytest.raises(ConfigError, match="the smallest has 6 of the 15"):
        ranks.check(small_job.method(), ROWS, PLAIN)


def test_the_memory_that_show_tells_is_what_was_measured():
    """The record of `bench sharded`: most live bytes in an update, in units of the set."""
    record = json.loads((ROOT / "docs/records/2026-11-21-sharded/bench.json").read_text())
    rows = [row for row in record["set"] if row["sharding"] in SHARDINGS]
    assert len(rows) == 15
    for row in rows:
        sharing = DeepSpeedRanks(row["ranks"], zero=SHARDINGS[row["sharding"]]).sharing()
        told, measured = sharing.copies / sharing.num_ranks, row["peak_bytes"] / record["set_bytes"]
        assert told == pytest.approx(measured, rel=0.06), row
