"""The supervised loop: order, partial batches, the drop, and what it depends on."""

import copy
import dataclasses

import pytest
import torch

from distributed_dd.learning.augment import Identity
from distributed_dd.learning.flat import flatten
from distributed_dd.learning.loop import Recipe, Training, accuracy, predict
from distributed_dd.learning.networks import MLP, ConvNet
from distributed_dd.learning.optimizers import GSAM, SGD

PLAIN = Recipe(num_epochs=4, batch_size=4, optimizer=SGD(0.1, 0.9), augment=Identity())


def data(n=10):
    rng = torch.Generator().manual_seed(0)
    return torch.randn(n, 1, 8, 8, generator=rng), torch.randint(3, (n,), generator=rng)


def trained(recipe, key=(0, "a"), labels=None, **kwargs):
    torch.manual_seed(0)
    network = MLP(2, 4).build((1, 8, 8), 3)
    images, targets = data()
    training = Training(network, images, targets if labels is None else labels, recipe, key, **kwargs)
    thetas = [flatten(network)]
    while training.epoch < recipe.num_epochs:
        thetas += training.run_epoch()
    return thetas


def test_same_key_same_bits_other_key_others():
    a, b, c = trained(PLAIN), trained(PLAIN), trained(PLAIN, key=(0, "b"))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True)) and not torch.equal(a[-1], c[-1])


def test_every_image_is_seen_once_an_epoch_the_last_partial_batch_included():
    seen = []

    class Spy(Identity):
        def draw(self, rng, count):
            seen.append(count)
            return super().draw(rng, count)

    trained(dataclasses.replace(PLAIN, num_epochs=1, augment=Spy()))
    assert seen == [4, 4, 2]


def test_the_drop_comes_after_half_the_epochs_and_forgets_momentum():
    """Catches the rate dropping an epoch early, and momentum surviving."""
    dropped = dataclasses.replace(PLAIN, num_epochs=5, drop=1e-6)
    constant = dataclasses.replace(PLAIN, num_epochs=5)
    a, b = trained(dropped), trained(constant)
    # Epochs 0, 1, 2 alike (5 // 2 + 1 = 3); from then on the rate is a millionth, and with momentum
    # kept the first such step would still move.
    assert torch.equal(a[3], b[3]) and not torch.equal(a[4], b[4])
    assert (a[4] - a[3]).norm() < 1e-5 * (b[4] - b[3]).norm()


def test_a_given_learning_rate_replaces_the_recipes():
    fast = dataclasses.replace(PLAIN, optimizer=SGD(0.3, 0.9))
    assert torch.equal(trained(PLAIN, learning_rate=0.3)[-1], trained(fast)[-1])


def test_soft_labels_are_logits():
    _, targets = data()
    hard = 100.0 * torch.nn.functional.one_hot(targets, 3)
    assert torch.allclose(trained(PLAIN, labels=hard)[-1], trained(PLAIN)[-1], atol=1e-5)


def test_accuracy_counts_the_right_ones():
    network = MLP(1, 1).build((1, 8, 8), 3)
    images, _ = data()
    answers = predict(network, images, batch_size=3).argmax(1)
    targets = answers.clone()
    targets[:4] = (targets[:4] + 1) % 3
    assert accuracy(network, images, targets) == 0.6


def network_and_data():
    torch.manual_seed(0)
    return MLP(2, 4).build((1, 8, 8), 3), *data()


def test_the_network_itself_holds_the_result():
    network, images, targets = network_and_data()
    Training(network, images, targets, PLAIN, (0, "a")).run_to_end()
    assert torch.equal(flatten(network), trained(PLAIN)[-1])


def test_a_training_that_goes_on_elsewhere_ends_with_the_same_bits():
    """Catches momentum, the drop or the order depending on what ran in this process."""
    recipe = dataclasses.replace(PLAIN, num_epochs=6, drop=0.1)
    whole = trained(recipe)
    for interrupted in range(1, 6):
        first = Training(*network_and_data(), recipe, (0, "a"))
        for _ in range(interrupted):
            list(first.run_epoch())
        second = Training(*network_and_data(), recipe, (0, "a"))
        second.load(first.theta_P.clone(), first.velocity_P.clone(), first.epoch)
        while second.epoch < 6:
            list(second.run_epoch())
        assert torch.equal(second.theta_P, whole[-1])


def test_stops_lie_inside_the_epoch_and_change_nothing():
    training = Training(*network_and_data(), PLAIN, (0, "a"))  # three batches an epoch
    a, b, end = training.run_epoch([0.34, 0.66, 1.0])
    assert not torch.equal(a, b) and not torch.equal(b, end)
    assert torch.equal(end, trained(PLAIN)[1])


def test_only_chosen_images_are_trained_on():
    network, images, targets = network_and_data()
    few = torch.tensor([1, 4, 7, 8, 9])
    a = Training(network, images, targets, PLAIN, (0, "a"), chosen=lambda epoch: few)
    other = images.clone()
    other[[0, 2, 3, 5, 6]] = 99.0
    b = Training(network_and_data()[0], other, targets, PLAIN, (0, "a"), chosen=lambda epoch: few)
    list(a.run_epoch())
    list(b.run_epoch())
    assert torch.equal(a.theta_P, b.theta_P) and not torch.equal(a.theta_P, trained(PLAIN)[1])


@pytest.mark.parametrize("optimizer", [SGD(0.1, 0.9), GSAM(learning_rate=0.1)])
def test_compiled_follows_eager_and_the_odd_batch_is_not_left_out(optimizer):
    """A smooth network in float64, so that the two paths may differ by rounding alone."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    network, (images, targets) = network.double(), data()
    thetas = []
    for compiled in (False, True):
        recipe = dataclasses.replace(PLAIN, optimizer=optimizer, compile=compiled)
        training = Training(copy.deepcopy(network), images.double(), targets, recipe, (0, "a"))
        for _ in range(2):
            list(training.run_epoch())
        thetas.append(training.theta_P)
    assert torch.allclose(*thetas, rtol=1e-10)


def test_bf16_is_near_float32_and_not_the_same():
    a = trained(PLAIN)[1]
    b = trained(dataclasses.replace(PLAIN, precision="bf16"))[1]
    start = trained(PLAIN)[0]
    assert 0 < (a - b).norm() < 0.05 * (a - start).norm()


def test_every_augmentation_and_every_expert_runs_the_same_compiled_code():
    """Catches a compilation for each memory layout, or for each network of the same layers."""
    import torch._dynamo.utils

    images = torch.randn(48, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(48) % 3
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for expert in range(3):
        network = ConvNet(1, 4).build((1, 8, 8), 3)
        recipe = Recipe(num_epochs=8, batch_size=8, compile=True)  # 48 batches draw every operation
        Training(network, images, targets, recipe, (0, "expert", expert)).run_to_end()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_a_set_that_is_smaller_than_a_batch_is_compiled_too():
    """As a distilled set usually is: its one batch is a full one."""
    import torch._dynamo.utils

    images, targets = data()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    recipe = Recipe(num_epochs=3, batch_size=len(images) + 5, compile=True, augment=Identity())
    Training(ConvNet(1, 4).build((1, 8, 8), 3), images, targets, recipe, (0, "a")).run_to_end()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
