"""Regression on neural features: the loss in plain code, the life of a pool, and what is refused."""

from dataclasses import replace
from functools import cache
from itertools import pairwise
from math import cos, pi

import pytest
import torch
from torch import nn

from distributed_dd.errors import ConfigError, DivergedError
from distributed_dd.experiment import experiment_of
from distributed_dd.learning.chance import generator
from distributed_dd.learning.flat import flatten, unflatten
from distributed_dd.learning.networks import ConvNet, FrePoConvNet, initialised
from distributed_dd.methods.neural_features import method as method_module
from distributed_dd.methods.neural_features.features import Architecture
from distributed_dd.methods.neural_features.method import NeuralFeatures
from distributed_dd.methods.neural_features.pools import Fresh, Trained
from distributed_dd.methods.neural_features.regression import Regression, label_margin, starting_targets
from distributed_dd.outer.checkpoint import Checkpoints
from distributed_dd.outer.learner import Held
from distributed_dd.outer.live_bytes import peak_live_bytes
from distributed_dd.outer.method import Seat
from distributed_dd.outer.set_losses import Unchanged
from distributed_dd.unroll import Alone, OnDevice
from tests.contracts import small_worlds
from tests.contracts.small_worlds import PER_CLASS, RankTools, over_ranks

NUM_CLASSES = len(small_worlds.TRAIN)
NUM_ROWS = NUM_CLASSES * PER_CLASS
CLASSES = torch.arange(NUM_CLASSES).repeat_interleave(PER_CLASS)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """Point -> the run with its data read, once."""
    folder = tmp_path_factory.mktemp("small")
    return cache(lambda point: small_worlds.made(point, folder))


def steps_of(whole, ranks=None, **settings):
    """The steps of a method with other settings, in float64 on a smooth network."""
    world = small_worlds.exact(whole.world).for_ranks(("train",))
    seat = Seat(ranks or Alone(), CLASSES, lambda parameters, steps: OnDevice)
    return replace(whole.method, **settings).steps(world, seat)


def a_set(whole, span=(0, NUM_ROWS)):
    """Images and targets that are no longer those of the start, in float64."""
    tensors = small_worlds.in_float64(whole.product.starting())
    moved = {}
    for name in ("images", "targets"):
        noise = torch.randn(tensors[name].shape, dtype=torch.float64, generator=generator(0, name))
        moved[name] = (tensors[name] + 0.2 * noise)[slice(*span)]
    return Held(span[0], moved)


def plain_loss(networks, real, classes, images, targets, method):
    """As the papers write it, with an inverse; networks are modules whose last one is the classifier."""

    def features(x):
        return torch.cat([network[:-1](x) for network in networks], 1)

    if method.flip:
        images, doubled = torch.cat([images, torch.flip(images, [3])]), torch.cat([targets, targets])
    else:
        doubled = targets
    z, real_z = features(images), features(real)
    if method.kernel_offset:
        z, real_z = z / z.shape[1] ** 0.5, real_z / z.shape[1] ** 0.5
    k, k_real = (method.kernel_scale * a @ z.T + method.kernel_offset for a in (z, real_z))
    regularised = k + method.ridge * torch.diag(k).sum() / len(k) * torch.eye(len(k), dtype=k.dtype)
    predictions = k_real @ torch.linalg.inv(regularised) @ doubled
    num_classes, total = targets.shape[1], 0.0
    for prediction, label in zip(predictions, classes.tolist(), strict=True):
        for number in range(num_classes):
            wanted = (1.0 if number == label else 0.0) - 1 / num_classes
            total = total + 0.5 * (prediction[number] - wanted) ** 2
    total = total / len(real)
    if method.margin:
        for target in targets:
            ordered = target.sort(descending=True).values
            gap = ordered[0] - ordered[1]
            total = total - (gap if gap < 1 / num_classes else gap * 0 + 1 / num_classes) / len(targets)
    return total


def modules_of(steps, whole):
    """The networks of the step that has begun, as modules in evaluation mode."""
    networks, found = steps.networks, []
    now = networks._now if hasattr(networks, "_now") else [networks.members[networks._place].network]
    for fitted in now:
        layers = small_worlds.Smooth(whole.world.network).build(small_worlds.SHAPE, NUM_CLASSES).double()
        unflatten(fitted.theta_P, layers)
        found.append(layers.eval())
    return found


@pytest.mark.parametrize("point", ["frepo", "frepo_mirrored", "rfad"])
def test_loss_and_gradients_are_those_of_plain_code(known, point):
    """Catches a mean over classes for a sum, targets that are scaled twice, a ridge of the wrong mean, features
    after the classifier, and a margin of the mirrored rows."""
    whole = known(point)
    steps, held = steps_of(whole), a_set(whole)
    found = steps.gradient(3, held)
    drawn = steps.drawn(3)
    assert len(drawn) == min(whole.method.batch_size, 24) and len(set(drawn.tolist())) == len(drawn)
    leaves = [held.tensors[name].clone().requires_grad_() for name in ("images", "targets")]
    real, classes = steps.images[drawn].double(), steps.world.real.train.targets[drawn]
    loss = plain_loss(modules_of(steps, whole), real, classes, *leaves, whole.method)
    assert float(found.parts["regression_loss"]) == pytest.approx(loss.item(), rel=1e-9)
    for (name, gradient), expected in zip(found.gradients.items(), torch.autograd.grad(loss, leaves), strict=True):
        assert (gradient - expected).abs().max() <= 1e-7 * expected.abs().max(), name
    difference = found.parts["squared_error"] - found.parts["regression_loss"]
    assert float(difference) == pytest.approx(float(found.parts["label_margin"]) * whole.method.margin, rel=1e-9)


def test_without_an_offset_the_scale_of_the_kernel_does_not_count(known):
    """What makes the published kernel Z Z^T one of these."""
    whole = known("frepo")
    losses = [float(steps_of(whole, kernel_scale=s).gradient(0, a_set(whole)).parts["regression_loss"]) for s in (1, 9)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


@pytest.mark.parametrize("num_ranks", [2, 3])
@pytest.mark.parametrize("parted", [False, True])
def test_ranks_agree_with_one_process_at_the_published_ridge(known, num_ranks, parted):
    """Nearly singular kernels multiply rounding: 1e-12 of the contract becomes 1e-10."""
    whole, settings = known("frepo_mirrored"), {"ridge": 1e-6, "batch_size": 7, "rows_at_once": 2}
    expected = steps_of(whole, **settings).gradient(0, a_set(whole))

    def in_rank(ranks):
        span = ranks.layout.kept(NUM_ROWS) if parted else (0, NUM_ROWS)
        found = steps_of(whole, ranks, **settings).gradient(0, a_set(whole, span))
        return span, found

    together = {name: torch.zeros_like(value) for name, value in expected.gradients.items()}
    loss = 0.0
    for span, found in over_ranks(num_ranks, 1, in_rank):
        loss += float(found.parts["regression_loss"])
        for name, part in found.gradients.items():
            together[name][slice(*span)] += part
    assert loss == pytest.approx(float(expected.parts["regression_loss"]), rel=1e-10)
    for name, value in expected.gradients.items():
        assert (together[name] - value).abs().max() <= 1e-10 * value.abs().max(), name


def test_rows_that_pass_together_change_memory_and_not_results(known):
    """Catches blocks that overlap or are left out, and graphs of all blocks that are kept."""
    whole, world = known("frepo"), replace(known("frepo").world, network=ConvNet(2, 32))
    classes = torch.arange(NUM_CLASSES).repeat_interleave(20)
    images = torch.randn(60, *small_worlds.SHAPE, generator=generator(0, "many"))
    held = Held(0, {"images": images, "targets": starting_targets(classes, NUM_CLASSES)})
    gradients, peaks = [], []
    for rows_at_once in (60, 7):
        method = replace(whole.method, rows_at_once=rows_at_once)
        steps = method.steps(world.for_ranks(("train",)), Seat(Alone(), classes, lambda p, n: OnDevice))
        gradients.append(steps.gradient(0, held).gradients["images"])
        peaks.append(peak_live_bytes(lambda steps=steps: steps.gradient(0, held)))
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-3, atol=1e-6)
    assert peaks[1] < 0.5 * peaks[0]


def test_the_set_predicts_itself():
    """With more features than rows: catches targets of other rows, and a kernel of other features."""
    features = torch.randn(6, 40, generator=generator(0, "z"))
    targets = torch.randn(6, 3, generator=generator(0, "y"))
    regression = Regression(ridge=1e-9, scale=2.0, offset=0.1)
    assert torch.allclose(regression.predictions(features, features, targets), targets.double(), atol=1e-6)


def test_the_margin_is_cut_and_targets_begin_at_their_classes():
    """By hand, for two classes, and for 40, where targets begin at half."""
    targets = torch.tensor([[0.5, -0.5], [0.1, 0.3], [0.2, 0.2]])
    assert float(label_margin(targets)) == pytest.approx(0.5 + 0.2 + 0.0)
    begun = starting_targets(torch.tensor([39]), 40)
    assert torch.allclose(begun[0, :2], torch.tensor([-0.025 / 2, -0.025 / 2]))
    assert float(begun[0, 39]) == pytest.approx(0.975 / 2)


# The pool.


def pooled(known, seed=0, **settings):
    """A pool's networks, small, and a set that stays as it is."""
    whole = known("frepo")
    world = replace(whole.world, network=ConvNet(1, 2), seed=seed).for_ranks(("train",))
    pool = Trained(**settings)
    seat = Seat(Alone(), CLASSES, lambda parameters, steps: OnDevice)
    starting = whole.product.starting()
    return pool.networks(Architecture(world.network, world), seed, seat), Unchanged(starting), starting, world


def test_networks_grow_old_and_are_made_anew_as_published(known):
    """250 steps beside a count of its own. Catches a network that is remade at its age, or that learns in the step
    that makes it, counters that begin alike, and a number that is used twice."""
    networks, learner, starting, world = pooled(known, num_networks=4, max_age=22)
    counters, numbers, trained, made = [0, 5, 10, 15], [0, 1, 2, 3], [0, 0, 0, 0], 4
    drawn = []
    for step in range(250):
        networks.begin(step, starting["images"])
        place = networks.place(step)
        drawn.append(place)
        assert networks.members[place].number == numbers[place]
        measured = networks.learn(step, learner)
        assert measured == {"network_age": counters[place]}
        if counters[place] > 22:
            counters[place], numbers[place], trained[place], made = 0, made, 0, made + 1
            layers = initialised(world.network, world.image_shape, NUM_CLASSES, generator(0, "pool", made - 1))
            assert torch.equal(networks.members[place].network.theta_P, flatten(layers))
        else:
            counters[place], trained[place] = counters[place] + 1, trained[place] + 1
        assert int(networks.members[place].kept[-1]) == trained[place], "Adam counts the steps of this network"
    assert made >= 12 and networks.members.num_made == made
    shares = torch.bincount(torch.tensor(drawn)) / 250
    assert shares.min() > 0.15 and shares.max() < 0.35, "drawn uniformly"
    assert any(a == b for a, b in pairwise(drawn)), "with replacement"


@pytest.mark.parametrize("batch_size", [1000, 5])
def test_a_network_takes_adams_steps_on_the_set(known, batch_size):
    """Beside torch's own. Catches a mean over classes, hard labels for targets, augmentation, and the same rows."""
    networks, learner, starting, world = pooled(known, num_networks=1, max_age=9, batch_size=batch_size)
    layers = initialised(world.network, world.image_shape, NUM_CLASSES, generator(0, "pool", 0))
    adam, seen = torch.optim.Adam(layers.parameters(), lr=3e-4), []
    for step in range(4):
        networks.begin(step, starting["images"])
        networks.learn(step, learner)
        rows = torch.arange(NUM_ROWS)
        if batch_size < NUM_ROWS:
            rows = torch.randperm(NUM_ROWS, generator=generator(0, "pool", "rows", step))[:batch_size]
        seen.append(tuple(rows.tolist()))
        loss = 0.5 * ((layers(starting["images"][rows]) - starting["targets"][rows]) ** 2).sum() / len(rows)
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert torch.allclose(networks.members[0].network.theta_P, flatten(layers), rtol=1e-4, atol=1e-7)
    assert len(set(seen)) == (4 if batch_size == 5 else 1)


def test_running_statistics_follow_the_batch_and_features_use_them(known):
    """Catches statistics that all networks share, are lost between steps, or are those of the batch in features."""
    whole = known("frepo_mirrored")
    seat = Seat(Alone(), CLASSES, lambda parameters, steps: OnDevice)
    world = whole.world.for_ranks(("train",))
    networks = Trained(num_networks=1).networks(Architecture(world.network, world), world.seed, seat)
    starting = whole.product.starting()
    layers = initialised(world.network, world.image_shape, NUM_CLASSES, generator(world.seed, "pool", 0))
    images = starting["images"]
    for step in range(2):
        networks.begin(step, images)
        layers.eval()
        assert torch.allclose(networks.features(images), layers[:-1](images), atol=1e-5)
        one, together = networks.features(images[:1]), networks.features(images)[:1]
        assert torch.allclose(one, together, atol=1e-5), "an image alone"
        networks.learn(step, Unchanged(starting))
        layers.train()(images)
        unflatten(networks.members[0].network.theta_P, layers)
        statistics = torch.cat([b.flatten() for b in layers.buffers() if b.is_floating_point()])
        assert torch.allclose(networks.members[0].network.running_Q, statistics, atol=1e-5)
    assert "pool.running" in networks.state()


def test_the_pool_may_have_another_architecture_than_is_scored(known):
    """Catches features of the network that is scored."""
    steps = steps_of(known("frepo"), network=FrePoConvNet(depth=1, width=3))
    assert steps.networks.num_features == 3 * 4 * 4
    assert steps.gradient(0, a_set(known("frepo"))).gradients["images"].abs().max() > 0


def test_fresh_networks_are_other_ones_in_every_step_and_keep_nothing(known):
    """Catches one network eight times, and a pool in disguise."""
    steps, held = steps_of(known("rfad")), a_set(known("rfad"))
    seen = []
    for step in (0, 1, 0):
        steps.gradient(step, held)
        seen.append([network.theta_P for network in steps.networks._now])
    assert not torch.equal(seen[0][0], seen[0][1]) and not torch.equal(seen[0][0], seen[1][0])
    assert all(torch.equal(a, b) for a, b in zip(seen[0], seen[2], strict=True))
    assert steps.state() == {} and NeuralFeatures(pool=Fresh()).turn(steps.world) == 1


# Rates and refusals.


def test_rates_fall_along_half_a_cosine_to_a_tenth(known):
    """Catches degrees, a cosine over a whole turn, and another end."""
    steps = steps_of(known("frepo"))
    num_steps = steps.world.num_outer_steps
    for step in range(num_steps):
        assert steps.rate_factor(step) == pytest.approx(0.1 + 0.45 * (1 + cos(pi * step / num_steps)))
    constant = steps_of(known("frepo"), final_rate=1.0)
    assert {constant.rate_factor(step) for step in range(num_steps)} == {1.0}


def test_numbers_that_are_not_finite_stop_the_run_before_anything_is_updated(known, tmp_path):
    """Catches a pool that has learned from a set that was not updated."""
    whole = known("frepo")
    checkpoints = Checkpoints(tmp_path, "small")
    starting = whole.product.starting()
    starting["images"][3] = 3e38  # finite, but no feature of it is
    saved = checkpoints.saved([checkpoints.write_shard(0, 0, 1, 0, starting)])
    worker = whole.method.job(whole.world, checkpoints).worker(saved, RankTools(Alone(), False))
    before = worker.learner.kept()
    with pytest.raises(DivergedError, match="not finite"):
        worker.outer_step(0)
    after = worker.learner.kept()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [int(member.kept[-1]) for member in worker.steps.networks.members.there()] == [0]


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"ridge": 0}, "method.ridge"),
        ({"ridge": -1e-6}, "method.ridge"),
        ({"image_optimizer": {"kind": "sgd", "learning_rate": 0}}, "method.image_optimizer.learning_rate"),
        ({"target_optimizer": {"kind": "sgd", "learning_rate": 0}}, "method.target_optimizer.learning_rate"),
        ({"pool": {"kind": "fresh", "max_age": 3}}, "method.pool.max_age"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_their_place(tmp_path, settings, where):
    values = small_worlds.values_of_point("frepo", tmp_path)
    with pytest.raises(ConfigError) as caught:
        experiment_of({**values, "method": {"kind": "neural_features", **settings}})
    assert caught.value.where == where


def test_networks_and_sets_that_cannot_work_are_refused(known, monkeypatch):
    """Before anything starts: catches a run that fails in its first outer step."""
    whole = known("frepo")
    with pytest.raises(ConfigError, match="features end"):
        whole.method.check(replace(whole.world, network=Bare()))
    monkeypatch.setattr(method_module, "memory_for_a_process", lambda num: 9 * 8 * 24**2 - 1)
    whole.method.check(whole.world)
    with pytest.raises(ConfigError, match="24 rows") as caught:
        replace(whole.method, flip=True).check(whole.world)
    assert caught.value.where == "images_per_class" and "flip" in caught.value.fix


class Bare:
    """A network that does not say where its blocks end."""

    def build(self, image_shape, num_classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))


def test_what_a_person_should_know_is_said(known):
    """Catches a note that is always there."""
    whole = known("frepo")
    assert any("class numbers" in note for note in whole.method.notes(whole.world))
    assert any("all 24" in note for note in NeuralFeatures().notes(whole.world))
    assert not any("real images" in note for note in whole.method.notes(whole.world))
