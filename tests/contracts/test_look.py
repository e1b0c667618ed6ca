"""The loss that a diagnosis asks for is the loss that outer steps measure: every method of sets is held to it."""

import pickle

import pytest
import torch

from distributed_dd.backends.local.cluster import InProcess
from distributed_dd.experiment import experiment_of
from distributed_dd.experiment_run import Run
from distributed_dd.learning.update_rules import UPDATE_RULES
from distributed_dd.methods import METHODS
from distributed_dd.outer.method import Method
from tests.contracts import small_worlds
from tests.contracts.small_worlds import EVERY_POINT, kind_of

ASKED = [point for point in EVERY_POINT if METHODS.members[kind_of(point)].look is not Method.look]
NUM_STEPS = 5


def without_updates(point, folder):
    """A point whose update rules have next to no rate: outer steps measure, and change nothing but their networks."""
    values = small_worlds.values_of_point(point, folder)
    method = experiment_of(values).method
    still = {
        name: {**values["method"].get(name, {}), "learning_rate": 1e-30}
        for name in ("image_optimizer", "label_optimizer", "target_optimizer", "rate_optimizer")
        if hasattr(method, name)
    }
    for group in ("rates", "labels"):  # of which some have a rule of their own
        own = getattr(getattr(method, group, None), "optimizer", None)
        if own is not None:
            kind = {"kind": UPDATE_RULES.kind_of(own)}
            still[group] = {**values["method"][group], "optimizer": {**kind, "learning_rate": 1e-30}}
    run = Run(experiment=experiment_of({**values, "method": {**values["method"], **still}}), cluster=InProcess())
    run.prepare()
    return run


@pytest.mark.parametrize("point", ASKED)
def test_the_loss_at_a_set_is_what_outer_steps_measure_there(point, tmp_path):
    run = without_updates(point, tmp_path)
    look = run.method.look(run.world)
    before = {name: tensor.clone() for name, tensor in look.start.items()}
    checkpoints = small_worlds.begun(tmp_path / "steps", run.product.starting())
    workers = small_worlds.working(run.method.job(run.world, checkpoints))
    name = next(iter(run.method.words.losses))
    wanted = [metrics[name] for metrics in workers.outer_steps(0, NUM_STEPS)]
    turns = [range(n, min(n + look.turn, NUM_STEPS)) for n in range(0, NUM_STEPS, look.turn)]
    other = {**look.start, "images": look.start["images"].flip(-1)}
    asked = [look.losses(turn, [look.start, other, look.start]) for turn in turns]
    for place in (0, 2):  # what is kept for the other sets is not of a set
        assert [loss for sets in asked for loss in sets[place]] == pytest.approx(wanted, rel=1e-6)
    sent = pickle.loads(pickle.dumps(look.losses))
    assert sent(turns[-1], [other]) == [pytest.approx(asked[-1][1], rel=1e-6)]
    assert asked[0][1] != pytest.approx(asked[0][0], rel=1e-6)
    assert all(torch.equal(look.start[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("point", ASKED)
def test_labels_of_training_images_are_those_of_the_start(point, tmp_path):
    run = without_updates(point, tmp_path)
    look = run.method.look(run.world)
    train = run.material.train
    assert look.labels.shape == (len(train), run.world.num_classes)
    for image, label in zip(look.start["images"], look.start["labels"], strict=True):
        same = (train.images == image).flatten(1).all(1)
        if same.any():  # a start may be noise
            assert torch.equal(look.labels[same][0], label)
