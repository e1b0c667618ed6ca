"""Networks by their parameter counts, and the student as a pure function."""

import pytest
import torch

from distributed_dd.errors import ConfigError
from distributed_dd.learning.chance import generator
from distributed_dd.learning.flat import Student, flatten, soft_cross_entropy, unflatten
from distributed_dd.learning.networks import (
    MLP,
    VGG11,
    AlexNet,
    ConvNet,
    FrePoConvNet,
    LeNet,
    ResNet10,
    ResNet18,
    TorchvisionModel,
    initialised,
)

CIFAR = (3, 32, 32)
# The ConvNets as published; others: weights and biases added up by hand, layer by layer.
COUNTS = [
    (MLP(), CIFAR, 10, 411_146),
    (LeNet(), CIFAR, 10, 62_006),
    (AlexNet(), CIFAR, 10, 1_872_202),
    (VGG11(), CIFAR, 10, 9_231_114),
    (ResNet10(norm="batch"), CIFAR, 10, 4_903_242),
    (ResNet18(), CIFAR, 10, 11_173_962),
    (ResNet18(norm="batch", downsample="average"), CIFAR, 10, 11_173_962),
    (TorchvisionModel("resnet18"), (3, 64, 64), 1000, 11_689_512),
    (ConvNet(3, 128), (3, 32, 32), 10, 320_010),
    (ConvNet(3, 128), (3, 32, 32), 100, 504_420),
    (ConvNet(4, 128), (3, 64, 64), 200, 857_160),
    (ConvNet(3, 128), (1, 28, 28), 10, 317_706),
    (FrePoConvNet(), CIFAR, 10, 1_560_842),
    (FrePoConvNet(norm="batch"), CIFAR, 10, 1_561_610),
    (FrePoConvNet(), (1, 28, 28), 10, 1_558_538),
]


SMALL = [
    (LeNet(), (1, 28, 28)),
    (LeNet(stride=2), (3, 64, 64)),
    (AlexNet(), (1, 28, 28)),
    (AlexNet(stride=2), (3, 64, 64)),
    (VGG11(), (1, 28, 28)),
    (VGG11(last_stride=1), CIFAR),
    (VGG11(), (3, 64, 64)),
    (ResNet10(stem_stride=2), (3, 64, 64)),
    (ResNet10(width=8), (1, 28, 28)),
    (ConvNet(2, 8, norm="group", pooling="max"), CIFAR),
    (ConvNet(2, 8, norm="none", pooling="none"), (1, 9, 9)),
    (FrePoConvNet(width=8, norm="instance"), (1, 28, 28)),
    (FrePoConvNet(2, 4), (1, 8, 8)),
    (TorchvisionModel("vit_b_16"), (3, 64, 64)),
]


@pytest.mark.parametrize(("network", "shape"), SMALL, ids=lambda v: str(v)[:40])
def test_every_stem_fits_its_image_size(network, shape):
    layers = network.build(shape, 7).eval()
    assert layers(torch.zeros(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("make", [ResNet10, VGG11, ConvNet, FrePoConvNet])
def test_batch_norm_is_for_evaluation_and_refused_as_a_student(make):
    layers = make(norm="batch").build(CIFAR, 10)
    with pytest.raises(ConfigError, match="running statistics"):
        Student(layers)


def test_frepos_network_normalises_what_goes_into_a_convolution_and_begins_by_lecuns_rule():
    """Catches a norm in the first block or after a convolution, a rule of another fan, and torch's biases."""
    layers = initialised(FrePoConvNet(norm="batch"), CIFAR, 10, generator(0, "x"))
    kinds = [module._get_name() for module in layers if not isinstance(module, torch.nn.Identity)]
    block = ["Conv2d", "ReLU", "AvgPool2d"]
    assert kinds == [*block, *(["BatchNorm2d", *block] * 2), "Flatten", "Linear"]
    norms = [module for module in layers if isinstance(module, torch.nn.BatchNorm2d)]
    assert [(norm.num_features, norm.momentum) for norm in norms] == [(128, 0.9), (256, 0.9)]
    for module in layers:
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            fan_in = module.weight[0].numel()
            assert float(module.weight.detach().std()) == pytest.approx(fan_in**-0.5, rel=0.05)
            assert module.weight.abs().max() <= 2.2738 * fan_in**-0.5, "cut at two deviations"
            assert not module.bias.any()


def test_average_and_stride_downsampling_differ_in_what_they_compute():
    strided, averaged = (ResNet10(width=4, downsample=how) for how in ("stride", "average"))
    a, b = (initialised(n, CIFAR, 10, generator(0, "x")) for n in (strided, averaged))
    assert torch.equal(flatten(a), flatten(b))
    images = torch.randn(2, *CIFAR)
    assert not torch.allclose(a(images), b(images))


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (LeNet(), (1, 8, 8)),
        (VGG11(), (3, 16, 16)),
        (AlexNet(), (1, 4, 4)),
        (TorchvisionModel(), (1, 64, 64)),
        (ResNet18(), (3, 4, 4)),
        (ResNet10(), (1, 8, 8)),
    ],
)
def test_images_too_small_for_a_network_are_refused(network, shape):
    with pytest.raises(ConfigError, match="network"):
        network.build(shape, 10)


OURS = [case for case in SMALL if not isinstance(case[0], TorchvisionModel)]


@pytest.mark.parametrize(("network", "shape"), [*OURS, (ResNet10(norm="group", width=8), (1, 8, 8))])
def test_every_network_sees_its_image_at_the_smallest_size(network, shape):
    """Catches an instance norm over one pixel, which passes nothing on but its bias."""
    layers = initialised(network, shape, 7, generator(0, "seen")).eval()
    first, second = torch.randn(2, *shape, generator=generator(0, "images")).split(1)
    assert (layers(first) - layers(second)).abs().max() > 1e-4


def test_an_unknown_torchvision_model_is_refused_with_a_hint():
    with pytest.raises(ConfigError, match="did you mean 'resnet18'"):
        TorchvisionModel("resnet19")


@pytest.mark.parametrize(("network", "shape", "classes", "count"), COUNTS)
def test_parameter_counts_of_the_field(network, shape, classes, count):
    layers = network.build(shape, classes)
    assert sum(p.numel() for p in layers.parameters()) == count
    assert layers(torch.zeros(2, *shape)).shape == (2, classes)


def test_too_many_blocks_for_the_image_are_refused():
    for make in (ConvNet, FrePoConvNet):
        with pytest.raises(ConfigError, match="at most 3"):
            make(depth=4).build((1, 8, 8), 10)


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
