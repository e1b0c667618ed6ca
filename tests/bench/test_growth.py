"""The benchmark of growth prepares what it says, and names what grows faster than its size."""

from contextlib import contextmanager

import pytest
import torch

from distributed_dd.bench import growth
from distributed_dd.bench.growth import SERIES, Cost, above_linear, cost_of, growth_rows


def test_a_power_is_of_the_size_and_what_is_above_one_is_named():
    costs = [Cost(1.0, 100), Cost(10.0, 100), Cost(1000.0, 400, 7)]
    rows = growth_rows("thing", "sizes", (10, 100, 200), costs)
    assert "power_of_seconds" not in rows[0]
    assert rows[1]["power_of_seconds"] == pytest.approx(1) and rows[1]["power_of_memory"] == 0
    assert rows[2]["power_of_memory"] == pytest.approx(2) and rows[2]["power_of_disk"] is None
    named = above_linear(rows)
    assert len(named) == 2 and "seconds of thing by sizes, up to 200: power 6.64" in named
    assert any(line.startswith("memory of thing") for line in named)


@pytest.mark.parametrize("number", range(len(SERIES)), ids=lambda number: " by ".join(SERIES[number][:2]))
def test_every_size_runs_and_what_is_written_grows(number, monkeypatch):
    monkeypatch.setattr(growth, "IMAGES", 50)
    prepare = SERIES[number][2]
    with prepare(2) as small, prepare(12) as large:
        written = small(), large()
    assert written == (0, 0) if prepare not in (growth.checkpoint, growth.comparison) else 0 < written[0] < written[1]


def test_a_cost_is_of_one_call_and_counts_its_tensors():
    calls = []

    @contextmanager
    def prepare(size):
        def call():
            calls.append(torch.zeros(size).sum())
            return 7

        yield call

    cost = cost_of(prepare, 2**18, rounds=2)
    assert cost.seconds > 0 and cost.disk_bytes == 7 and len(calls) == 5
    assert 2**20 <= cost.peak_bytes < 2**21
