"""`bench sharded` at sizes of a second: what it counts, and that every row is told."""

import json

import pytest

from distributed_dd.bench import sharded
from distributed_dd.bench.sharded_tables import print_tables
from distributed_dd.learning.networks import ConvNet, ResNet18


@pytest.mark.slow
def test_every_sharding_has_its_row(capsys):
    step = sharded.Size(name="step", network=ConvNet(depth=1, width=2), num_images=20, steps=2, batch=8)
    deep = sharded.Size(name="deep", network=ResNet18(width=1), num_images=10, steps=2, batch=2)
    result = sharded.measure(100, step, deep, (2,), 1)
    json.dumps(result)
    rows = {row["sharding"]: row for row in result["set"]}
    assert set(rows) == {"one process", *sharded.SHARDINGS}
    whole = result["set_bytes"]
    assert rows["one process"]["idle_bytes"] <= 2.01 * whole
    assert rows["own rows"]["idle_bytes"] <= 1.01 * whole < rows["ZeRO 0"]["idle_bytes"]
    for row in result["steps"]:
        assert row["sum_calls"] == 3 and row["seconds"] > 0
        assert (row["row_calls"] > 0) == (row["sharding"] in ("ZeRO 3", "own rows"))
    assert {row["stored"] for row in result["stored"]} == {"device", "spread"}
    assert {row["sharding"] for row in result["spares"]} == set(sharded.SHARDINGS)
    assert all(row["bytes"] > whole / 2 and row["seconds"] > 0 for row in result["spares"])
    print_tables(result)
    out = capsys.readouterr().out
    assert all(name in out for name in sharded.SHARDINGS) and "spread" in out
