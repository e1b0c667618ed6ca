"""Networks by their parameter counts, and the student as a pure function."""

import pytest
import torch

from distributed_dd.distillation.chance import generator
from distributed_dd.distillation.networks import MLP, ConvNet, initialised
from distributed_dd.distillation.student import Student, flatten, soft_cross_entropy, unflatten
from distributed_dd.errors import ConfigError

COUNTS = [
    (ConvNet(3, 128), (3, 32, 32), 10, 320_010),
    (ConvNet(3, 128), (3, 32, 32), 100, 504_420),
    (ConvNet(4, 128), (3, 64, 64), 200, 857_160),
    (ConvNet(3, 128), (1, 28, 28), 10, 317_706),
]


@pytest.mark.parametrize(("network", "shape", "classes", "count"), COUNTS)
def test_parameter_counts_of_the_field(network, shape, classes, count):
    layers = network.build(shape, classes)
    assert sum(p.numel() for p in layers.parameters()) == count
    assert layers(torch.zeros(2, *shape)).shape == (2, classes)


def test_too_many_blocks_for_the_image_are_refused():
    with pytest.raises(ConfigError, match="at most 3"):
        ConvNet(depth=4).build((1, 8, 8), 10)


def test_fresh_parameters_depend_on_the_generator_alone():
    """Catches the field's reseeding from the clock."""
    torch.manual_seed(1)
    a = flatten(initialised(MLP(2, 4), (1, 8, 8), 3, generator(0, "x")))
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    b = flatten(initialised(MLP(2, 4), (1, 8, 8), 3, generator(0, "x")))
    c = flatten(initialised(MLP(2, 4), (1, 8, 8), 3, generator(1, "x")))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_student_is_the_network_at_theta():
    torch.manual_seed(0)
    network = ConvNet(2, 4).build((1, 8, 8), 3).double()
    other = ConvNet(2, 4).build((1, 8, 8), 3).double()
    images = torch.randn(5, 1, 8, 8, dtype=torch.float64)
    student = Student(network)
    assert torch.equal(student.logits(flatten(other), images), other(images))
    assert student.num_parameters == len(flatten(other))


def test_flatten_copies_and_unflatten_restores():
    """Catches checkpoints that alias the live weights."""
    network = MLP(2, 4).build((1, 8, 8), 3)
    theta = flatten(network)
    with torch.no_grad():
        for p in network.parameters():
            p.zero_()
    assert theta.abs().sum() > 0
    unflatten(theta, network)
    assert torch.equal(flatten(network), theta)


def test_soft_cross_entropy_of_hard_labels_is_cross_entropy():
    logits, targets = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    hard = 100.0 * torch.nn.functional.one_hot(targets, 4)
    expected = torch.nn.functional.cross_entropy(logits, targets)
    assert torch.allclose(soft_cross_entropy(logits, hard), expected, rtol=1e-6)
    labels = torch.randn(6, 4)
    by_hand = -sum(float(labels[i].softmax(0) @ logits[i].log_softmax(0)) for i in range(6)) / 6
    assert float(soft_cross_entropy(logits, labels)) == pytest.approx(by_hand, rel=1e-6)
