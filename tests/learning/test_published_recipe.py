"""The axes of published recipes, each against its definition or torch's own."""

from dataclasses import replace
from math import cos, pi

import pytest
import torch
from torch import nn

from distributed_dd.learning.augment import Gentle, Identity
from distributed_dd.learning.chance import generator
from distributed_dd.learning.criteria import CrossEntropy, Distillation, SquaredError
from distributed_dd.learning.flat import flatten
from distributed_dd.learning.loop import Recipe, Training
from distributed_dd.learning.mixing import CutMix, Mixup, Unmixed
from distributed_dd.learning.optimizers import SGD, Adam, AdamW
from distributed_dd.learning.published_recipe import PublishedRecipe
from distributed_dd.learning.schedules import Constant, Cosine, Drop, Moment

NUM_CLASSES = 3


@pytest.fixture
def images():
    return torch.randn(10, 1, 4, 4, generator=generator(0, "images"))


@pytest.fixture
def targets():
    return torch.arange(10) % NUM_CLASSES


def linear():
    layers = nn.Sequential(nn.Flatten(), nn.Linear(16, NUM_CLASSES))
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator(1, "start")))
    return layers


def recipe(**settings):
    plain = {"num_classes": NUM_CLASSES, "num_epochs": 2, "batch_size": 4, "augment": Identity()}
    return PublishedRecipe(**{**plain, "optimizer": SGD(0.1), "scheduled": Constant(), **settings})


def trained(images, labels, recipe, **more):
    training = Training(linear(), images, labels, recipe, (0, "test"), **more)
    training.run_to_end()
    return training


@pytest.mark.parametrize(
    ("own", "torchs"),
    [
        (Adam(learning_rate=0.1, weight_decay=0.1), torch.optim.Adam),
        (AdamW(learning_rate=0.1, weight_decay=0.1), torch.optim.AdamW),
    ],
)
def test_adam_on_one_vector_is_torchs_on_a_module(images, targets, own, torchs):
    """Catches state that is shared with the vector before, and a count that does not advance."""
    training = Training(linear(), images, targets, recipe(num_epochs=3, batch_size=10, optimizer=own), (0, "test"))
    before, kept = training.theta_P.clone(), training.velocity_P.clone()
    first, first_state = training.theta_P, training.velocity_P
    training.run_to_end()
    assert torch.equal(first, before) and torch.equal(first_state, kept), "what was before is not written to"
    layers = linear()
    rule = torchs(layers.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        rule.zero_grad()
        nn.functional.cross_entropy(layers(images), targets).backward()
        rule.step()
    assert torch.allclose(training.theta_P, flatten(layers), atol=1e-6)
    assert training.velocity_P[-1] == 3


def moment(step, num_batches=5, num_epochs=20):
    return Moment(epoch=step // num_batches, batch=step % num_batches, num_batches=num_batches, num_epochs=num_epochs)


def test_a_cosine_rises_over_its_warm_up_and_falls_to_its_share():
    schedule = Cosine(10, 0.01)
    assert [schedule.factor(moment(step)) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    for step in (10, 40, 99):
        assert schedule.factor(moment(step)) == pytest.approx(0.01 + 0.99 * (1 + cos(pi * (step - 10) / 90)) / 2)
    assert Cosine(500).factor(moment(49)) == 1.0, "a warm-up longer than half of all steps ends there"
    assert Cosine().factor(moment(0)) == 1.0


def test_a_drop_is_that_of_the_plain_recipe(images, targets):
    plain = Recipe(num_epochs=5, batch_size=4, drop=0.1, optimizer=SGD(0.1, 0.9), augment=Identity())
    published = recipe(num_epochs=5, optimizer=SGD(0.1, 0.9), scheduled=Drop(0.1))
    assert torch.equal(trained(images, targets, plain).theta_P, trained(images, targets, published).theta_P)
    assert not torch.equal(trained(images, targets, published).theta_P, trained(images, targets, recipe()).theta_P)


@pytest.mark.parametrize("mixing", [CutMix(), Mixup(alpha=0.4)])
def test_mixed_labels_are_in_the_share_of_mixed_pixels(mixing):
    """A batch of images that are all their own number: every pixel says whose it is."""
    values = torch.arange(1.0, 7.0).reshape(6, 1, 1, 1).expand(6, 1, 8, 8).contiguous()
    labels = torch.arange(6)
    state = torch.get_rng_state()
    mixed, logits = mixing.apply(values, labels, 6, generator(0, "mix"))
    assert torch.equal(torch.get_rng_state(), state), "torch's own state is put back"
    shares = logits.softmax(1)
    assert shares.sum(1).allclose(torch.ones(6)) and (shares > 0).sum(1).max() == 2
    expected = (shares * torch.arange(1.0, 7.0)).sum(1)
    assert mixed.mean((1, 2, 3)).allclose(expected, atol=1e-5)
    again, _ = mixing.apply(values, labels, 6, generator(0, "mix"))
    other, _ = mixing.apply(values, labels, 6, generator(1, "mix"))
    assert torch.equal(mixed, again) and not torch.equal(mixed, other)
    soft, _ = mixing.apply(values, nn.functional.one_hot(labels, 6) * 50.0, 6, generator(0, "mix"))
    assert torch.equal(soft, mixed)
    unmixed, same = replace(mixing, probability=0.0).apply(values, labels, 6, generator(0, "mix"))
    assert torch.equal(unmixed, values) and torch.equal(same, labels)
    assert Unmixed().apply(values, labels, 6, generator(0, "mix"))[1] is labels


def test_squared_error_is_to_the_centred_probabilities():
    logits, labels = torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.tensor([0, 1])
    # targets (1/2, -1/2) and (-1/2, 1/2): squares 1/4 + 1/4, 1 + 0
    assert SquaredError().loss(logits, labels).item() == pytest.approx(0.5 * (0.5 + 1.0) / 2)
    assert SquaredError("mean").loss(logits, labels).item() == pytest.approx(0.25 * (0.5 + 1.0) / 2)
    soft = nn.functional.one_hot(labels, 2) * 100.0
    assert SquaredError().loss(logits, soft).item() == pytest.approx(0.375)


def test_distillation_is_the_divergence_at_its_temperature():
    logits, teacher = torch.randn(5, 4, generator=generator(2)), torch.randn(5, 4, generator=generator(3))
    expected = nn.functional.kl_div(
        (logits / 4).log_softmax(1), (teacher / 4).softmax(1), reduction="batchmean", log_target=False
    )
    assert Distillation(4.0).loss(logits, teacher).item() == pytest.approx(16 * expected.item(), rel=1e-5)
    assert Distillation(4.0).loss(teacher, teacher).item() == pytest.approx(0, abs=1e-6)


def test_mixed_hard_labels_give_a_finite_gradient(images, targets):
    """Labels that are logarithms of 0 must not turn into numbers that are none."""
    training = trained(images, targets, recipe(mixing=CutMix(), loss=CrossEntropy()))
    assert training.theta_P.isfinite().all()
    assert not torch.equal(training.theta_P, trained(images, targets, recipe()).theta_P)


def test_a_teacher_says_what_a_batch_is(images, targets):
    """With the labels of a teacher the set's own say nothing."""
    teacher = linear()
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.neg_()
    of_teacher = recipe(loss=Distillation(2.0))
    one = trained(images, targets, of_teacher, teacher=lambda batch: teacher(batch).detach())
    other = trained(images, targets.flip(0), of_teacher, teacher=lambda batch: teacher(batch).detach())
    assert torch.equal(one.theta_P, other.theta_P)
    with torch.no_grad():
        logits = teacher(images)
    assert torch.allclose(one.theta_P, trained(images, logits, of_teacher).theta_P, atol=1e-6)


def test_the_average_of_parameters_is_the_result(images, targets):
    averaged = trained(images, targets, recipe(average=0.5, num_epochs=1))
    mean = flatten(linear())
    training = Training(linear(), images, targets, recipe(num_epochs=1, batch_size=4), (0, "test"))
    for theta_P in training.run_epoch([1 / 3, 2 / 3, 1.0]):
        mean = 0.5 * mean + 0.5 * theta_P
    assert torch.allclose(flatten(averaged.network), mean, atol=1e-6)
    assert torch.equal(averaged.theta_P, training.theta_P), "the average is not what goes on"


def test_updates_are_counted_in_whole_epochs_and_batches_may_be_as_stored(images, targets):
    counted = recipe(num_steps=7).fitted_to(10)
    assert counted.num_epochs == 3, "three batches of four an epoch"
    stored = recipe(shuffled=False)
    assert stored.order(4, generator(0)).tolist() == [0, 1, 2, 3]
    real = stored.of_real_images(5)
    assert real.num_epochs == 5 and real.shuffled
    assert real.order(50, generator(0)).tolist() != list(range(50))


def test_gentle_augmentation_draws_each_operation_and_no_flip_where_none_is_wanted():
    images = torch.rand(6, 3, 16, 16, generator=generator(4))
    names = {type(Gentle().draw(generator(0, step), 6)).__name__ for step in range(80)}
    assert names == {"Color", "Scale", "Rotate", "Crop", "_SmallCutout", "Flip"}
    unflipped = {type(Gentle(flip=False).draw(generator(0, step), 6)).__name__ for step in range(80)}
    assert unflipped == names - {"Flip"}
    for step in range(20):
        drawn = Gentle().draw(generator(0, step), 6)
        assert drawn(images).shape == images.shape and torch.equal(drawn(images), drawn(images))
        if type(drawn).__name__ == "_SmallCutout":
            hole = (drawn(torch.ones_like(images)) == 0).sum((2, 3))
            assert hole.max() == 16, "a quarter of the side"


def test_fewer_epochs_leave_the_order_and_the_size_of_batches(images, targets):
    """A first look trains as the protocol does: images as stored, a few passes, whatever it counts in."""
    asked = recipe(num_steps=30, shuffled=False).fitted_to(len(images))
    fewer = asked.at_most(2).fitted_to(len(images))
    assert (asked.num_epochs, fewer.num_epochs, fewer.shuffled) == (10, 2, False)
    assert asked.at_most(50).fitted_to(len(images)).num_epochs == 10
    trained_fewer = trained(images, targets, fewer)
    assert trained_fewer.epoch == 2
    assert torch.equal(trained_fewer.theta_P, trained(images, targets, recipe(num_epochs=2, shuffled=False)).theta_P)
