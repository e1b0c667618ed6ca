"""The plain expert loop and the stacked one compute what ours does, and every side gets its row."""

import json

import pytest
import torch
from torch.utils.data import TensorDataset

from distributed_dd.bench.experts import SIDES, build_side, measure, speed_row
from distributed_dd.bench.packing import WAYS, Problem, StackedExperts, packing_row, stacked_gradient
from distributed_dd.bench.plain_expert import PlainExpert, PlainGSAM, PlainSGD
from distributed_dd.bench.rounds import Failed, Times, ask, ask_all, serve, start, stop
from distributed_dd.cli import main
from distributed_dd.learning.augment import Siamese
from distributed_dd.learning.chance import generator
from distributed_dd.learning.flat import FlatNetwork, flatten
from distributed_dd.learning.loop import Recipe, Training
from distributed_dd.learning.networks import MLP, ConvNet
from distributed_dd.learning.optimizers import GSAM, SGD

TINY = Problem(name="mlp 2x8, 8px", network=MLP(depth=2, width=8), images=64, held_out=32, channels=1, side=8, batch=32)


def tiny_set(count=12):
    torch.manual_seed(0)
    return torch.randn(count, 1, 8, 8).double(), torch.randint(3, (count,))


def tiny_network():
    torch.manual_seed(1)
    return ConvNet(2, 4).build((1, 8, 8), 3).double()


def plain(network, optimizer, batch=5):
    """The plain loop of the same settings on `tiny_set`, without augmentation."""
    base = torch.optim.SGD(
        network.parameters(), optimizer.learning_rate, optimizer.momentum, weight_decay=optimizer.weight_decay
    )
    gsam = isinstance(optimizer, GSAM)
    update = PlainGSAM(base, optimizer.rho, optimizer.alpha, optimizer.adaptive) if gsam else PlainSGD(base)
    data = TensorDataset(*tiny_set())
    return PlainExpert(network, update, data, data, batch, lambda images: images)


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(0.1),
        GSAM(learning_rate=0.1, rho=0.5, alpha=0.3),
        GSAM(learning_rate=0.1, momentum=0.9, weight_decay=0.01, rho=0.1, adaptive=False),
    ],
    ids=["sgd", "adaptive gsam", "gsam"],
)
def test_the_plain_loop_takes_our_steps(optimizer):
    """Three epochs of ours; the same batches and the same augmentation fed to the plain loop."""
    images, labels = tiny_set()
    recipe = Recipe(batch_size=5, optimizer=optimizer)
    ours, theirs = Training(tiny_network(), images, labels, recipe, (0, "x")), tiny_network()
    other = plain(theirs, optimizer)
    start_P = flatten(theirs)
    for epoch in range(3):
        list(ours.run_epoch())
        rng = generator(0, "x", "epoch", epoch)
        for batch in torch.randperm(len(images), generator=rng).split(5):
            other.step(Siamese().draw(rng, len(batch))(images[batch]), labels[batch])
    assert (flatten(theirs) - start_P).norm() > 1e-2
    assert torch.allclose(flatten(theirs), ours.theta_P, rtol=1e-9, atol=1e-11)


def test_a_plain_epoch_is_one_pass_over_all_images():
    images, labels = tiny_set()
    network, ours = tiny_network(), tiny_network()
    loop = plain(network, SGD(0.1), batch=12)
    loop.epoch()
    loss = torch.nn.functional.cross_entropy(ours(images), labels)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(ours.parameters()))])
    assert torch.allclose(flatten(network), flatten(ours) - 0.1 * gradient, rtol=1e-9, atol=1e-12)
    assert loop.accuracy() == (network(images).argmax(1) == labels).double().mean().item()


def test_the_stacked_gradient_is_each_expert_s_own():
    (images, labels), count = tiny_set(), 3
    flat = FlatNetwork(tiny_network())
    theta_kP = 0.3 * torch.randn(count, flat.num_parameters).double()
    batches = torch.stack([torch.randperm(12)[:6] for _ in range(count)])
    stacked = stacked_gradient(flat)(theta_kP, images[batches], labels[batches])
    for theta_P, batch, gradient_P in zip(theta_kP, batches, stacked, strict=True):
        leaf = theta_P.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(flat.logits(leaf, images[batch]), labels[batch])
        assert torch.allclose(torch.autograd.grad(loss, leaf)[0], gradient_P, rtol=1e-9, atol=1e-12)


def test_stacked_experts_learn_and_stay_apart():
    stacked = StackedExperts(TINY, "float32", False, 2)
    before_kP = stacked.theta_kP
    stacked.epoch()
    moved = (stacked.theta_kP - before_kP).norm(dim=1)
    assert (moved > 0).all() and not torch.equal(stacked.theta_kP[0], stacked.theta_kP[1])


def test_more_images_than_there_are_come_as_noisy_copies():
    train, held_out = Problem(name="x", network=MLP(), images=2000, held_out=51, channels=3, side=16).data()
    assert train.images.shape == (2000, 3, 16, 16) and len(held_out) == 51
    first, again = train.images[0], train.images[1491]
    assert train.targets[0] == train.targets[1491] and not torch.equal(first, again)
    assert (first - again).std() < 0.1 and train.images.std() > 0.5


def test_ratios_are_taken_within_a_round():
    plain_times, own = Times(1.0, [1.0, 10.0, 2.0]), Times(1.0, [0.5, 5.0, 1.0])
    row = speed_row(TINY, own, plain_times, [0.25, 2.5, 0.5])
    assert row["ratio_to_plain"] == 2.0 and row["ratio_training_only"] == 1.5
    assert packing_row(TINY, 4, plain_times, own)["ratio_to_one"] == 2.0
    assert speed_row(TINY, Times(error=Failed("no")), plain_times, []) == {"error": "no"}
    assert "ratio_to_plain" not in speed_row(TINY, own, Times(error=Failed("no")), [])


class Leaves:
    """A side whose process ends without an answer."""

    def epoch(self) -> None:
        import os

        os._exit(1)


def test_a_process_that_ends_is_a_failure():
    import multiprocessing

    worker = start(multiprocessing.get_context("spawn"), serve, (Leaves, 1, False))
    assert ask(worker[1], ("build", ())) == 0
    assert ask_all([worker], ("time", "epoch")) == "its process ended"
    assert isinstance(ask(worker[1], ("time", "epoch")), Failed)
    stop([worker])


@pytest.mark.slow
def test_every_side_and_way_has_its_row_and_one_that_raises_stops_no_other(monkeypatch):
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")  # the compiled sides run as they are: in no time
    sides = ("plain", "nonsense", *SIDES[1:])
    measured = measure(TINY, (TINY,), rounds=1, packing_rounds=1, sides=sides, forms=("eager",))
    result = json.loads(json.dumps(measured))
    found = [(row["optimizer"], row["side"]) for row in result["speed"]]
    assert found == [(optimizer, side) for optimizer in ("sgd", "gsam") for side in sides]
    failed = [row for row in result["speed"] if row["side"] == "nonsense"]
    assert all(row["error"].startswith("KeyError") and "seconds" not in row for row in failed)
    plain_seconds = {row["optimizer"]: row["seconds"] for row in result["speed"] if row["side"] == "plain"}
    for row in [row for row in result["speed"] if row not in failed]:
        assert 0 <= row["accuracy"] <= 1 and row["matrix_fraction"] > 0
        assert row["ratio_to_plain"] == pytest.approx(plain_seconds[row["optimizer"]] / row["seconds"])
    assert set(result["matrix_rate"]) == {"float32", "bf16"}
    assert [row["way"] for row in result["packing"]] == list(WAYS)
    assert all(row["images_per_second"] > 0 for row in result["packing"])


def test_the_sides_start_from_the_same_parameters():
    ours, theirs = build_side("ours", TINY, "gsam"), build_side("plain", TINY, "gsam")
    assert torch.equal(ours.training.theta_P, flatten(theirs.network))


def test_an_unknown_topic_is_an_error(capsys):
    with pytest.raises(SystemExit) as left:
        main(["bench", "nonsense"])
    assert left.value.code == 2 and "experts" in capsys.readouterr().err


@pytest.mark.slow
def test_the_quick_benchmark_runs_whole(capsys):
    assert main(["bench", "experts", "--quick", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert not [row for row in (*result["speed"], *result["packing"]) if "error" in row]
