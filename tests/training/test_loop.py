"""The supervised loop: order, partial batches, the drop, and what it depends on."""

import dataclasses

import torch

from distributed_dd.distillation.augment import Identity
from distributed_dd.distillation.networks import MLP
from distributed_dd.distillation.student import flatten
from distributed_dd.training.loop import Recipe, accuracy, predict, train
from distributed_dd.training.optimizers import SGD

PLAIN = Recipe(num_epochs=4, batch_size=4, optimizer=SGD(0.1, 0.9), augment=Identity())


def data(n=10):
    rng = torch.Generator().manual_seed(0)
    return torch.randn(n, 1, 8, 8, generator=rng), torch.randint(3, (n,), generator=rng)


def trained(recipe, key=(0, "a"), labels=None, **kwargs):
    torch.manual_seed(0)
    network = MLP(2, 4).build((1, 8, 8), 3)
    images, targets = data()
    thetas = [flatten(network)]
    for _ in train(network, images, targets if labels is None else labels, recipe, key, **kwargs):
        thetas.append(flatten(network))
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
