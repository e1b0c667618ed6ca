"""The benchmark of evaluation trains one network in several ways, and its ratios are of one round."""

import json

import pytest
import torch
from torch import nn

from distributed_dd.bench.evaluation import FIRST, SIDES, Problem, Side, step_row, with_torchs_pooling
from distributed_dd.bench.rounds import Failed, Times
from distributed_dd.cli import main
from distributed_dd.learning.networks import ConvNet
from distributed_dd.learning.networks.pooling import AveragePool

SMALL = Problem(name="small", network=ConvNet(depth=1, width=4), shape=(1, 8, 8), images=20, steps=3)


def test_sides_train_the_same_network_and_differ_in_what_they_are_called_after():
    sides = {side: Side(SMALL, side) for side in SIDES}
    pools = {side: type(next(m for m in s.training.network if "Pool" in type(m).__name__)) for side, s in sides.items()}
    assert pools.pop(FIRST) is nn.AvgPool2d and set(pools.values()) == {AveragePool}
    for side, one in sides.items():
        assert one.training.recipe.compile == ("compiled" in side)
        assert (one.training.recipe.precision == "bf16") == ("bf16" in side)
        assert torch.equal(one.training.theta_P, sides[FIRST].training.theta_P)
    assert sides["default"].epoch() == pytest.approx(sides[FIRST].epoch(), rel=1e-5)
    assert sides["default"].training.epoch == SMALL.steps


def test_pooling_inside_of_blocks_is_replaced_too():
    network = nn.Sequential(nn.Sequential(AveragePool()), AveragePool())
    replaced = with_torchs_pooling(network)
    assert not any(isinstance(module, AveragePool) for module in replaced.modules())
    assert sum(isinstance(module, AveragePool) for module in network.modules()) == 2


def test_ratios_are_taken_within_a_round():
    times = {FIRST: Times(9.0, [1.0, 10.0, 2.0]), "default": Times(1.0, [0.5, 5.0, 1.0])}
    row = step_row("default", 10, times)
    assert row["ratio_to_first"] == 0.5 and row["seconds_per_step"] == 0.1 and row["first_seconds"] == 1.0
    times["bf16"] = Times(error=Failed("RuntimeError: no such thing"))
    assert step_row("bf16", 10, times) == {"side": "bf16", "error": "RuntimeError: no such thing"}


@pytest.mark.slow
def test_the_quick_benchmark_runs(capsys):
    assert main(["bench", "evaluation", "--quick", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["side"] for row in rows] == [*SIDES] and all(row["seconds_per_step"] > 0 for row in rows)
