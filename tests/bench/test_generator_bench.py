"""The benchmark of the generator step compares like with like."""

import json

import torch

from distributed_dd.bench import generator as bench
from distributed_dd.bench.generator import Size, _images, _networks
from distributed_dd.bench.plain_gan import Pictures, PlainLoop, with_torchs_norm
from distributed_dd.cli import main


def test_the_usual_loop_is_the_same_generator_and_changes_all_three_networks():
    made, discriminator, judge = _networks(Size(4, 1, 8))
    plain = with_torchs_norm(_networks(Size(4, 1, 8))[0])
    noise = torch.randn(8, 64)
    assert torch.allclose(made(noise), plain(noise), atol=1e-6)
    data = _images()
    before = [[p.clone() for p in network.parameters()] for network in (plain, discriminator, judge)]
    PlainLoop(plain, discriminator, judge, Pictures(data.images, data.targets), 8, 2, 64, 10, 0).step()
    for network, values in zip((plain, discriminator, judge), before, strict=True):
        assert any(not torch.equal(p, old) for p, old in zip(network.parameters(), values, strict=True))


def test_the_bench_runs_and_tells_seconds_of_every_side(capsys):
    import ray

    ray.shutdown()
    assert main(["bench", "generator", "--quick", "--json"]) == 0
    ray.shutdown()
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert set(row["seconds"]) == {"usual loop", "one process", "pool ahead on Ray"}
    assert all(value > 0 for value in row["seconds"].values())


def test_where_there_is_no_ray_the_other_sides_are_timed(capsys, monkeypatch):
    monkeypatch.setattr(bench, "is_installed", lambda: False)
    assert main(["bench", "generator", "--quick", "--json"]) == 0
    captured = capsys.readouterr()
    (row,) = json.loads(captured.out)["rows"]
    assert set(row["seconds"]) == {"usual loop", "one process"} and "Ray is not installed" in captured.err
