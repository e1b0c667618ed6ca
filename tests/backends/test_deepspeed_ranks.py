"""How ranks divide a distillation: what they refuse, and what their estimate rests on."""

import json
from dataclasses import dataclass

import pytest
from torch import nn

from distributed_dd.backends.deepspeed.engine import DeepSpeedRanks
from distributed_dd.backends.deepspeed.zero import Zero
from distributed_dd.bench.sharded import SHARDINGS
from distributed_dd.errors import ConfigError
from distributed_dd.unroll import Direct
from tests.conftest import ROOT
from tests.references import small_job


@dataclass(frozen=True)
class Normed:
    """A network with a norm over the batch."""

    def build(self, image_shape, num_classes):
        norm = nn.BatchNorm2d(2, track_running_stats=False)
        return nn.Sequential(nn.Conv2d(1, 2, 3), norm, nn.Flatten(), nn.Linear(72, num_classes))


def division(network=small_job.NETWORK, **settings):
    """What can be divided of 15 images in batches of 9 and 6, four segments an outer step."""
    return small_job.method(**settings).division(small_job.world(network=network))


def test_a_norm_over_the_batch_is_refused_where_ranks_share_one():
    """Also without running statistics, which alone a student could follow."""
    normed = division(Normed())
    with pytest.raises(ConfigError, match="normalises over the batch") as caught:
        DeepSpeedRanks(num_ranks=2).check(normed)
    assert caught.value.where == "network" and "layer 1" in str(caught.value)
    DeepSpeedRanks(num_ranks=2, split="segments").check(normed)


def test_the_direct_unroll_goes_with_segments_of_a_whole_set_only():
    direct = division(unroll=Direct())
    DeepSpeedRanks(num_ranks=2, split="segments", zero=Zero(2)).check(direct)
    for ranks in (
        DeepSpeedRanks(num_ranks=2),
        DeepSpeedRanks(num_ranks=2, split="segments", zero=Zero(3)),
        DeepSpeedRanks(num_ranks=2, split="segments", zero=Zero(own_rows=True)),
    ):
        with pytest.raises(ConfigError, match="replayed"):
            ranks.check(direct)


@pytest.mark.parametrize(("num_ranks", "fits"), [(6, True), (7, False)])
def test_no_rank_may_be_left_without_a_row_of_the_smallest_batch(num_ranks, fits):
    """15 rows in batches of 9: the other batch has 6."""
    ranks = DeepSpeedRanks(num_ranks=num_ranks)
    if fits:
        ranks.check(division())
        return
    with pytest.raises(ConfigError, match="the smallest has 6 images"):
        ranks.check(division())


def test_the_memory_that_show_tells_is_what_was_measured():
    """The record of `bench sharded`: most live bytes in an update, in units of the set."""
    record = json.loads((ROOT / "docs/records/2026-11-21-sharded/bench.json").read_text())
    rows = [row for row in record["set"] if row["sharding"] in SHARDINGS]
    assert len(rows) == 15
    for row in rows:
        sharing = DeepSpeedRanks(num_ranks=row["ranks"], zero=SHARDINGS[row["sharding"]]).sharing()
        told, measured = sharing.copies / sharing.num_ranks, row["peak_bytes"] / record["set_bytes"]
        assert told == pytest.approx(measured, rel=0.06), row
