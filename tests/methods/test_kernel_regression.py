"""KIP: its loss in plain code, its rows, and what it refuses."""

import json

import pytest
import torch
import yaml

from distributed_dd.backends.local.cluster import InProcess
from distributed_dd.cli import main
from distributed_dd.data import Facts
from distributed_dd.errors import ConfigError, UserError
from distributed_dd.evaluation.artefact import load_distilled
from distributed_dd.experiment import experiment_of
from distributed_dd.experiment_run import Run
from distributed_dd.learning.chance import generator
from distributed_dd.learning.classes import centred_targets, hard_logits
from distributed_dd.learning.kernels.convolutional import Convolutional
from distributed_dd.learning.kernels.fully_connected import FullyConnected
from distributed_dd.learning.kernels.ridge import predict, ridge_weights
from distributed_dd.learning.networks import MLP, ConvNet, LeNet
from distributed_dd.methods.kernel_regression import method as method_file
from distributed_dd.methods.kernel_regression.limits import limit_of
from distributed_dd.methods.kernel_regression.method import KernelRegression
from distributed_dd.methods.kernel_regression.pairs import Pairs
from distributed_dd.methods.kernel_regression.rows import Regression
from distributed_dd.outer.learner import Held
from distributed_dd.outer.method import Seat
from distributed_dd.outer.scale import Scale
from distributed_dd.unroll import Alone, OnDevice
from tests.conftest import ROOT
from tests.contracts import small_worlds

NUM_CLASSES, PER_CLASS = 3, 4
HERE = ["--on", str(ROOT / "configs/clusters/in_process.yaml")]


@pytest.fixture(scope="module")
def world():
    return small_worlds.many_classes(NUM_CLASSES, PER_CLASS)


def steps_of(method, world):
    classes = torch.arange(NUM_CLASSES).repeat_interleave(PER_CLASS)
    return method.steps(world, Seat(Alone(), classes, lambda parameters, steps: OnDevice))


def images_of(count, key):
    return torch.randn(count, *small_worlds.SHAPE, dtype=torch.float64, generator=generator(0, key))


@pytest.mark.parametrize("kernel", [FullyConnected(2), Convolutional(blocks=(1, 1))])
def test_the_loss_is_half_the_mean_over_images_and_classes(world, kernel):
    """Catches a sum over classes, targets that are not centred, a ridge that is no share of the mean."""
    method = KernelRegression(kernel=kernel, batch_size=15, ridge=1e-2, learned_targets=True)
    steps, images = steps_of(method, world), images_of(NUM_CLASSES * PER_CLASS, "set")
    targets = torch.randn(len(images), NUM_CLASSES, dtype=torch.float64, generator=generator(0, "targets"))
    found = steps.gradient(0, Held(0, {"images": images, "targets": targets}))
    batch = steps.draw(0)
    assert world.real.train.targets[batch.index].bincount().tolist() == [5, 5, 5]
    real = world.real.train.images[batch.index].double()
    own = kernel.ntk(images)
    weights = torch.linalg.inv(own + 1e-2 * own.trace() / len(own) * torch.eye(len(own), dtype=torch.float64)) @ targets
    wanted = torch.eye(NUM_CLASSES, dtype=torch.float64)[world.real.train.targets[batch.index]] - 1 / NUM_CLASSES
    outputs = kernel.ntk(real, images) @ weights
    loss = 0.5 * (outputs - wanted).square().mean().item()
    assert found.parts["regression_loss"].item() == pytest.approx(loss, rel=1e-9)
    right = (outputs.argmax(1) == world.real.train.targets[batch.index]).double().mean()
    assert found.parts["regression_accuracy"].item() == pytest.approx(right.item())


def test_fixed_targets_are_those_of_the_classes(world):
    """Without learned targets the gradient by images is that with targets of the classes, and there is no other."""
    images = images_of(NUM_CLASSES * PER_CLASS, "set")
    classes = torch.arange(NUM_CLASSES).repeat_interleave(PER_CLASS)
    fixed = steps_of(KernelRegression(batch_size=15), world).gradient(0, Held(0, {"images": images}))
    learned = steps_of(KernelRegression(batch_size=15, learned_targets=True), world).gradient(
        0, Held(0, {"images": images, "targets": centred_targets(classes, NUM_CLASSES, torch.float64)})
    )
    assert torch.equal(fixed.gradients["images"], learned.gradients["images"])
    assert fixed.gradients.keys() == {"images"} and learned.gradients.keys() == {"images", "targets"}


def test_real_images_are_new_in_every_step_and_balanced(world):
    steps = steps_of(KernelRegression(batch_size=9), world)
    drawn = [steps.draw(step).index for step in range(20)]
    assert len({tuple(index.tolist()) for index in drawn}) == 20
    for index in drawn:
        assert len(index.unique()) == 9 and world.real.train.targets[index].bincount().tolist() == [3, 3, 3]


def test_a_regression_on_all_images_knows_them_and_solved_labels_serve_better_than_hard_ones(world):
    """Solved labels are the best of all in least squares: on the images that they were solved for."""
    train, regression = world.real.train, Regression(Pairs(FullyConnected(1), 2**20), 1e-6, NUM_CLASSES)
    everything = centred_targets(train.targets, NUM_CLASSES)
    assert regression.accuracy(train.images, everything, train) == 1.0
    few = torch.arange(0, len(train), 6)
    images = train.images[few]

    def error(targets):
        weights = ridge_weights(regression.pairs.matrix(images), targets, regression.ridge)
        outputs = predict(regression.pairs.matrix(train.images, images), weights)
        return (outputs - everything).square().mean().item()

    solved = regression.solved(images, train)
    best = error(solved)
    assert best < error(everything[few])
    for number in range(3):
        other = solved + 0.05 * torch.randn(solved.shape, generator=generator(number, "other labels"))
        assert best < error(other)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Of a run in a small world whose networks learn targets."""
    folder = tmp_path_factory.mktemp("kip")
    values = small_worlds.values_of_point("kip_targets", folder)
    values["evaluate"] = {**values["evaluate"], "protocol": {"kind": "frepo", "num_steps": 20, "warm_up_steps": 2}}
    (folder / "kip.yaml").write_text(yaml.safe_dump(values))
    assert main(["run", str(folder / "kip.yaml"), *HERE]) == 0
    (path,) = folder.glob("*/report.json")
    return path.parent, json.loads(path.read_text())


def test_a_report_has_rows_of_networks_and_rows_of_the_kernel(report):
    """Two things that are never one column: which labels each had is said."""
    folder, values = report
    rows = {row["name"]: row for row in values["rows"]}
    labels = {name: row["labels"] for name, row in rows.items()}
    assert labels["distilled"] == labels["starting_set"] == labels["kernel_regression"] == "targets"
    assert labels["distilled_hard_labels"] == labels["random_real"] == labels["kernel_regression_random_real"] == "hard"
    assert labels["random_real_solved_labels"] == labels["kernel_regression_solved_labels"] == "solved"
    kernels = [row for name, row in rows.items() if name.startswith("kernel_regression")]
    assert {row["network"] for row in kernels} == {"fc kernel"} and rows["distilled"]["network"] == "convnet"
    assert rows["kernel_regression"]["num_networks"] == 1
    assert rows["kernel_regression_solved_labels"]["num_networks"] == rows["random_real"]["num_networks"] == 2
    text = (folder / "report.md").read_text()
    assert "kernel regression on the distilled set" in text and "labels solved" in text


def test_a_set_gives_its_targets_to_whoever_asks(report):
    folder, _ = report
    learned = load_distilled(folder, labels="targets")
    assert learned.learned_targets.shape == (NUM_CLASSES * PER_CLASS, NUM_CLASSES)
    assert torch.equal(learned[3][1], learned.learned_targets[3]) and learned.learned_targets.sum(1).abs().max() < 0.5
    assert not torch.equal(learned.learned_targets, centred_targets(learned.targets, NUM_CLASSES)), "they were learned"
    assert torch.equal(load_distilled(folder).labels, hard_logits(learned.targets, NUM_CLASSES))


def refused(point, folder, **changes):
    values = small_worlds.values_of_point(point, folder)
    values["method"] = {**values["method"], **changes}
    with pytest.raises(UserError) as caught:
        whole = Run(experiment=experiment_of(values), cluster=InProcess())
        whole.prepare()
        whole.method.check(whole.world)
    return str(caught.value)


def test_what_cannot_be_solved_is_refused_before_work(tmp_path, monkeypatch):
    assert "a class would be missing" in refused("kip", tmp_path, batch_size=2)
    assert "ridge" in refused("kip", tmp_path, ridge=0)
    assert "halve 8x8" in refused("kip", tmp_path, kernel={"kind": "conv", "blocks": [1, 1, 1, 1]})
    text = refused("kip", tmp_path, kernel={"kind": "network"})
    assert "network.norm" in text and "method.kernel.kind=fc" in text
    assert "learning_rate" in refused("kip", tmp_path, image_optimizer={"kind": "sgd", "learning_rate": 0})
    monkeypatch.setattr(method_file, "memory_for_a_process", lambda num_processes: 1000)
    text = refused("kip", tmp_path)
    assert "images_per_class" in text and "float64" in text and "1000.0 B are free" in text


def test_a_network_names_its_kernel():
    """The limit of our own layers: a ConvNet of two blocks, a perceptron of one hidden layer."""
    assert limit_of(ConvNet(depth=2, norm="none")) == Convolutional(blocks=(1, 1))
    assert limit_of(MLP(depth=2)) == FullyConnected(1)
    for other in (ConvNet(norm="instance"), ConvNet(norm="none", pooling="max"), MLP(depth=1), LeNet()):
        with pytest.raises(ConfigError, match=r"no kernel|not known"):
            limit_of(other)


def test_show_counts_pairs_and_says_how_long_they_take(tmp_path):
    """A convolutional kernel on all of MNIST is hours a step: a person must see it before."""
    values = {
        "data": {"kind": "mnist", "size": 28},
        "images_per_class": 1,
        "num_outer_steps": 1000,
        "preprocessing": {"kind": "standardise"},
        "method": {"kind": "kernel_regression", "kernel": {"kind": "conv"}},
    }
    experiment = experiment_of(values)
    facts = Facts(image_shape=(1, 28, 28), num_classes=10, num_train=54_000)
    scale = Scale(
        facts=facts,
        network=experiment.network,
        images_per_class=1,
        num_outer_steps=1000,
        evaluate=experiment.evaluate,
    )
    (line,) = [line for line in experiment.method.work(scale).lines if line.startswith("kernel")]
    assert "50,055 pairs of images" in line and "272,749 positions" in line and "days in all" in line
