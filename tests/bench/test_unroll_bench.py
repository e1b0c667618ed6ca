"""The benchmark's baseline computes the same thing, and its figures are of what they say."""

import json

import pytest
import torch

from distributed_dd import matching_gradient
from distributed_dd.bench.plain_loop import plain_matching_gradient
from distributed_dd.bench.unroll import _time_row
from distributed_dd.cli import main
from distributed_dd.learning.flat import flatten
from distributed_dd.learning.networks import ConvNet


def test_the_plain_loop_and_the_package_agree():
    torch.manual_seed(0)
    network = ConvNet(2, 4).build((1, 8, 8), 3).double()
    start = flatten(network)
    given = (
        network,
        start,
        start + 0.1 * torch.randn_like(start),
        torch.randn(6, 1, 8, 8).double(),
        torch.randn(6, 3).double(),
        0.05,
        [torch.randperm(6)[:4] for _ in range(3)],
    )
    ours = matching_gradient(*given)
    theirs = plain_matching_gradient(*given)
    for mine, other in zip((ours.loss, ours.images, ours.labels, ours.learning_rate), theirs, strict=True):
        assert torch.allclose(mine, other, rtol=1e-9, atol=1e-12)


def test_ratios_are_taken_within_a_round():
    """A slow round slows both sides; the ratio of medians would not see it."""
    from distributed_dd.bench.sides import Size

    seconds = {"plain": [1.0, 10.0, 2.0], "replayed": [0.5, 5.0, 1.0]}
    gradient = [None, torch.tensor([1.0, 0.0]).numpy()]
    made = _time_row("replayed", Size(1, 1), seconds, {"plain": gradient, "replayed": gradient})
    assert made["ratio_to_plain"] == 0.5 and made["image_gradient_cosine"] == 1.0
    failed = _time_row("direct", Size(1, 1), {"direct": []}, {"direct": "RuntimeError: no memory"})
    assert failed["error"] == "RuntimeError: no memory"


@pytest.mark.slow
def test_the_quick_benchmark_runs_whole(capsys):
    assert main(["bench", "unroll", "--quick", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    sides = {row["side"] for row in result["times"]}
    assert sides - {row["side"] for row in result["memory"]} == {"plain, memory kept"}
    for row in result["times"]:
        limit = 0.98 if "bf16" in row["side"] else 0.999999
        assert row["image_gradient_cosine"] > limit
