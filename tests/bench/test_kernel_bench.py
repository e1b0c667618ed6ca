"""The benchmark of the kernels times what it says, and its figures are of one round."""

import json

import pytest
import torch

from distributed_dd.bench.kernel import Problem, Product, Side, speed_row
from distributed_dd.bench.rounds import Failed, Times
from distributed_dd.cli import main
from distributed_dd.learning.kernels import Convolutional, FullyConnected
from distributed_dd.learning.kernels.blocks import kernel_matrix

SMALL = Problem(name="small", kernel=Convolutional(blocks=(1,)), shape=(1, 4, 4), rows=5, columns=3, block_bytes=2**14)


@pytest.mark.parametrize("backward", [False, True])
def test_a_side_makes_the_whole_matrix_and_its_gradient(monkeypatch, backward):
    """Catches a benchmark of one block, or of a graph that is never pulled back."""
    side, gradients = Side(SMALL, compiled=False, backward=backward), []
    grad = torch.autograd.grad

    def watched(outputs, inputs, *rest):
        gradients.append(inputs is side.y)
        return grad(outputs, inputs, *rest)

    expected = SMALL.kernel.ntk(*SMALL.images()).sum().item()
    assert 1 <= side.block_pairs < 15
    monkeypatch.setattr(torch.autograd, "grad", watched)
    assert side.epoch() == pytest.approx(expected, rel=1e-5)
    assert any(gradients) == backward


def test_the_bound_is_of_the_same_images():
    problem = Problem(name="dense", kernel=FullyConnected(), shape=(1, 4, 4), rows=5, columns=3)
    product = Product(problem, backward=True)
    product.epoch()
    x, y = problem.images()
    assert torch.equal(product.x_nd, x.flatten(1)) and torch.equal(product.y_md, y.detach().flatten(1))
    assert kernel_matrix(problem.kernel, x, y, block_pairs=4).shape == (len(product.x_nd), len(product.y_md))


def test_ratios_are_taken_within_a_round():
    """A slow round slows both sides; the ratio of medians would not see it."""
    times = {"eager": Times(9.0, [1.0, 10.0, 2.0]), "compiled": Times(30.0, [0.5, 5.0, 1.0])}
    row = speed_row("compiled", 100, times, {"eager": 2.0, "compiled": 2.0 + 2e-7})
    assert row["ratio_to_eager"] == 0.5 and row["pairs_per_second"] == 100
    assert row["error_of_sum"] == pytest.approx(1e-7)
    times["compiled"] = Times(error=Failed("RuntimeError: no compiler"))
    assert speed_row("compiled", 100, times, {}) == {"side": "compiled", "error": "RuntimeError: no compiler"}


@pytest.mark.slow
def test_the_quick_benchmark_runs(capsys):
    assert main(["bench", "kernel", "--quick", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["side"] for row in rows} == {"eager", "compiled", "matrix product"}
    assert all(row["pairs_per_second"] > 0 for row in rows)
    assert all(row["error_of_sum"] < 1e-5 for row in rows if row["side"] == "compiled")
