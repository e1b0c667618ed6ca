"""Kernels of infinitely wide networks: against neural-tangents, a plain writing-down, and finite differences."""

from pathlib import Path

import numpy
import pytest
import torch
from torch.func import functional_call, jacrev, vmap

from distributed_dd.errors import ConfigError
from distributed_dd.family import Family, build_member
from distributed_dd.learning.chance import generator
from distributed_dd.learning.kernels import KERNELS, Convolutional, FullyConnected
from distributed_dd.learning.kernels.blocks import kernel_matrix
from distributed_dd.learning.kernels.pairs import pair_values
from distributed_dd.learning.kernels.ridge import predict, ridge_weights
from tests.references.plain_kernel import images, plain_kernel, steps_of

STORED = Path(__file__).parents[1] / "references" / "ntk"
INPUTS, VALUES = (numpy.load(STORED / f"ref_{which}.npz") for which in ("in", "out"))
NAMES = sorted(name.removesuffix("_x") for name in INPUTS if name.endswith("_x"))
FAMILY = Family("kernel of a test", KERNELS)
TWO_BLOCKS = Convolutional(blocks=(1, 1))
MYRTLE5 = Convolutional(blocks=(2, 1, 1), last_pooling=False, readout="global")
NETWORKS = {
    "fc1": FullyConnected(1),
    "fc3": FullyConnected(3),
    "conv2": Convolutional(blocks=(2,), last_pooling=False),
    "convnet2": TWO_BLOCKS,
    "convnet2gap": Convolutional(blocks=(1, 1), readout="global"),
    "pre_convnet2": Convolutional(blocks=(2, 1)),
    "pre_convnet3": Convolutional(),
    "myrtle5": MYRTLE5,
}
SOME = pytest.mark.parametrize("kernel", [FullyConnected(2), TWO_BLOCKS, MYRTLE5], ids=["fc", "conv", "myrtle5"])


def stored(name, dtype):
    """The kernel, its images on both sides, and the stored NNGP and NTK."""
    x, y = (torch.tensor(INPUTS[f"{name}_{side}"]).to(dtype) for side in "xy")
    if x.ndim == 2:
        x, y = x[:, None, None], y[:, None, None]
    return NETWORKS[name.split("@")[0]], x, y, *(torch.tensor(VALUES[f"{name}_{which}"]) for which in "kt")


def far(values, expected):
    """The largest relative error."""
    return ((values.double() - expected).abs() / expected.abs()).max().item()


@pytest.mark.parametrize("name", NAMES)
def test_values_are_those_of_neural_tangents(name):
    """Pairs of identical, correlated and independent images. The angle of an image with itself is 0 here; there it is
    the root of a rounding error, hence the wider limit for the NTK."""
    kernel, x, y, nngp, ntk = stored(name, torch.float64)
    assert far(kernel.nngp(x, y), nngp) < 1e-12
    assert far(kernel.ntk(x, y), ntk) < 1e-7
    kernel, x, y, nngp, ntk = stored(name, torch.float32)
    assert kernel.ntk(x, y).dtype == torch.float32
    assert far(kernel.nngp(x, y), nngp) < 1e-6
    assert far(kernel.ntk(x, y), ntk) < 1e-6


@pytest.mark.parametrize("readout", ["flatten", "global"])
@pytest.mark.parametrize(
    ("blocks", "last_pooling", "shape"),
    [((1, 1), True, (1, 7, 9)), ((1, 2), False, (3, 7, 5)), ((2, 1), False, (1, 6, 5)), ((1, 1, 1), True, (1, 14, 8))],
)
def test_values_are_those_of_the_whole_covariances(blocks, last_pooling, shape, readout):
    """Catches a band that is too narrow, a dropped row that comes back in a later convolution, and height for width."""
    kernel = Convolutional(blocks=blocks, last_pooling=last_pooling, readout=readout)
    x, y = images(1, shape), images(2, shape, seed=1)
    nngp, ntk = plain_kernel(steps_of(kernel), readout == "global", x, y)
    assert far(kernel.nngp(x, y), nngp) < 1e-12
    assert far(kernel.ntk(x, y), ntk) < 1e-12


@pytest.mark.parametrize("shape", [(2, 8, 8), (1, 14, 9)])
def test_the_band_is_as_good_as_all_offsets(shape):
    kernel = Convolutional(blocks=(2, 1))
    x, y = images(2, shape), images(3, shape, seed=1)
    everything = kernel.plan(*shape[1:], whole=True)
    assert everything.radii[0] > kernel.plan(*shape[1:]).radii[0]
    values = pair_values(everything, "ntk", x, y, kernel.prepared(x), kernel.prepared(y), False)
    assert far(kernel.ntk(x, y), values) < 1e-13


def test_the_work_of_a_pair_is_counted():
    """Figures counted by hand: 4 convolutions at 32 and at 28 pixels, all offsets, and two blocks at 8 pixels."""
    assert Convolutional().pairs_cost((3, 32, 32)) == 370_036
    assert Convolutional().pairs_cost((1, 28, 28)) == 272_749
    assert Convolutional(readout="global").pairs_cost((3, 32, 32)) == 2_166_784
    assert TWO_BLOCKS.pairs_cost((1, 8, 8)) == 2_036
    assert FullyConnected(3).pairs_cost((1, 8, 8)) == 3


@SOME
def test_gradients_are_those_of_differences(kernel):
    """By both sides and by what is prepared of them; the image with itself is left to the next test."""
    x, y = images(2, (2, 6, 5)).requires_grad_(), images(3, (2, 6, 5), seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: (kernel.ntk(x, y), kernel.nngp(x, y)), (x, y), fast_mode=True)


@SOME
@pytest.mark.parametrize("background", ["none", "constant"])
def test_the_gradient_of_the_regression_is_that_of_central_differences(kernel, background):
    """The whole loss of KIP, with each image's kernel with itself in it. Constant backgrounds are equal patches, which
    have the angle 0 with one another; the slope there is infinite in a careless root."""
    support, targets = images(3, (1, 8, 8)), images(4, (1, 8, 8), seed=1)
    if background == "constant":
        for pictures in (support, targets):
            pictures[:, :, :4] = -0.4
            pictures[:, :, :, 5:] = -0.4
    labels, wanted = images(3, (2,), seed=2), images(4, (2,), seed=3)
    inner = (support != -0.4).double()

    def loss(support):
        weights = ridge_weights(kernel_matrix(kernel, support, block_pairs=4), labels, 1e-3)
        return 0.5 * (predict(kernel_matrix(kernel, targets, support, block_pairs=4), weights) - wanted).square().mean()

    leaf = support.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    assert torch.isfinite(gradient).all()
    # A pixel of the background sits at a kink; those of the picture do not.
    direction = images(3, (1, 8, 8), seed=4) * inner
    step = 1e-5
    slope = (loss(support + step * direction) - loss(support - step * direction)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-6)


@SOME
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equal_images_have_finite_gradients(kernel, dtype):
    """Catches the infinite slope of a root at 0, and infinity times the 0 of a mask."""
    x = images(2, dtype=dtype)
    x[1] = x[0]
    x = torch.cat([x, torch.zeros_like(x[:1]), torch.ones_like(x[:1])]).requires_grad_()
    for other in (None, x.detach().clone()):
        (gradient,) = torch.autograd.grad(kernel.ntk(x, other).sum(), x)
        assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0


def test_a_network_that_does_not_fit_is_refused():
    with pytest.raises(
        ConfigError, match=r"kernel.blocks: 3 poolings, one after each block, halve 7x28 (.|\n)*at most 2"
    ):
        Convolutional().check((1, 7, 28))
    with pytest.raises(ConfigError, match="halve 4x4"):
        kernel_matrix(Convolutional(), images(1, (1, 4, 4)), block_pairs=1)
    Convolutional(last_pooling=False).check((1, 7, 28))
    with pytest.raises(ConfigError, match=r"blocks: got 0 blocks"):
        build_member(FAMILY, {"kind": "conv", "blocks": []})
    with pytest.raises(ConfigError, match=r"blocks\[1\]"):
        build_member(FAMILY, {"kind": "conv", "blocks": [1, 0]})
    with pytest.raises(ConfigError, match="depth"):
        build_member(FAMILY, {"kind": "fc", "depth": 0})


def test_kernels_say_what_network_they_are():
    assert KERNELS["fc"]().describe() == "fully connected, 1 hidden layer of infinite width"
    assert MYRTLE5.describe() == "2 conv, pool, 1 conv, pool, 1 conv, global pooling, dense; of infinite width"
    assert build_member(FAMILY, {"kind": "conv", "blocks": [1, 1]}) == TWO_BLOCKS


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [TWO_BLOCKS, MYRTLE5], ids=["conv", "myrtle5"])
def test_compiled_code_gives_the_same_numbers(kernel):
    x, y = images(4, dtype=torch.float32).requires_grad_(), images(5, seed=1, dtype=torch.float32).requires_grad_()
    results = {}
    for compiled in (False, True):
        values = kernel_matrix(kernel, x, y, block_pairs=6, compiled=compiled)
        itself = kernel_matrix(kernel, x, block_pairs=6, compiled=compiled)
        loss = (values * images(4, (5,), dtype=torch.float32)).sum() + itself.sum()
        results[compiled] = values.detach(), itself.detach(), *torch.autograd.grad(loss, (x, y))
    for ours, theirs in zip(results[False], results[True], strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6 * float(ours.abs().max()))


class Wide(torch.nn.Module):
    """A finite network in NTK parameterisation: weights of variance 1, scaled as they are used."""

    def __init__(self, kernel, shape, width, rng):
        super().__init__()
        self.steps, self.everywhere = steps_of(kernel), kernel.readout == "global"
        channels, height, width_of_map = shape
        for i, step in enumerate(self.steps):
            if step == "conv":
                self.register_parameter(f"w{i}", self._drawn(rng, width, channels, 3, 3))
                self.register_parameter(f"b{i}", self._drawn(rng, width))
                channels = width
            elif step == "pool":
                height, width_of_map = height // 2, width_of_map // 2
        self.w = self._drawn(rng, channels * (1 if self.everywhere else height * width_of_map))
        self.b = self._drawn(rng, 1)

    def _drawn(self, rng, *shape):
        return torch.nn.Parameter(torch.randn(shape, generator=rng))

    def forward(self, x):
        for i, step in enumerate(self.steps):
            if step == "conv":
                weight, bias = getattr(self, f"w{i}"), getattr(self, f"b{i}")
                scale = (2 / (9 * weight.shape[1])) ** 0.5
                x = torch.nn.functional.conv2d(x, weight * scale, 0.1 * bias, padding=1)
            else:
                x = x.relu() if step == "relu" else torch.nn.functional.avg_pool2d(x, 2)
        x = x.mean((2, 3)) if self.everywhere else x.flatten(1)
        return x @ self.w * (2 / len(self.w)) ** 0.5 + 0.1 * self.b[0]


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [TWO_BLOCKS, Convolutional(blocks=(1, 1), readout="global")])
def test_wide_networks_come_near(kernel):
    """Finite networks' own tangent kernels: each comes nearer as a root of the width, and their mean is the kernel."""
    x = images(3, dtype=torch.float32)
    expected = kernel.ntk(x.double())
    distances, means = {}, {}
    for width in (16, 128):
        kernels = []
        for number in range(64):
            network = Wide(kernel, (2, 8, 8), width, generator(number, "wide"))

            def output(parameters, one, network=network):
                return functional_call(network, parameters, (one[None],))[0]

            jacobian = vmap(jacrev(output), (None, 0))(dict(network.named_parameters()), x)
            rows = torch.cat([part.flatten(1) for part in jacobian.values()], 1)
            kernels.append((rows @ rows.T).detach().double() / expected)
        distances[width] = (torch.stack(kernels) - 1).square().mean().sqrt().item()
        means[width] = (torch.stack(kernels).mean(0) - 1).abs().max().item()
    assert distances[128] < 0.5 * distances[16]  # 8 times as wide: 0.35
    assert means[128] < 0.05
