"""Average pooling as a product: torch's numbers, for values and for gradients of both orders, wherever it is used."""

import copy

import pytest
import torch
from torch import nn
from torch.func import grad, jvp, vmap
from torch.utils.flop_counter import FlopCounterMode

from distributed_dd.learning.flat import FlatNetwork, Student, flatten
from distributed_dd.learning.networks import initialised
from distributed_dd.learning.networks.convnet import ConvNet
from distributed_dd.learning.networks.pooling import AveragePool

SHAPES = [(3, 2, 8, 8), (2, 3, 32, 32), (1, 1, 2, 4), (2, 5, 64, 64), (4, 2, 6, 10), (3, 8, 8)]
OTHERS = [(2, 2, 7, 8), (2, 2, 8, 7), (2, 2, 2, 2), (1, 1, 3, 3), (1, 2, 8, 130)]


def products(function):
    """Matrix products that a call makes, by their names in a profile."""
    with torch.profiler.profile() as seen:
        function()
    return sum(event.name in ("aten::mm", "aten::matmul") for event in seen.events())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES + OTHERS, ids=str)
def test_values_and_gradients_are_those_of_torch(shape, dtype):
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    weight, vector = torch.randn_like(nn.AvgPool2d(2)(x)), torch.randn_like(x)

    def everything(pool):
        y = pool(x)
        (first,) = torch.autograd.grad((y.tanh() * weight).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad((first * vector).sum(), x)
        return y.detach(), first.detach(), second

    assert (products(lambda: AveragePool()(x)) > 0) == (shape in SHAPES)
    # The same bits where a product adds in ascending order; a rounding or two elsewhere.
    rounding = {torch.float32: 1e-6, torch.float64: 1e-14}[dtype]
    for ours, theirs in zip(everything(AveragePool()), everything(nn.AvgPool2d(2)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=rounding, atol=rounding)


def test_it_goes_through_every_transform():
    torch.manual_seed(0)
    x, v = torch.randn(5, 2, 3, 8, 8, dtype=torch.float64), torch.randn(5, 2, 3, 8, 8, dtype=torch.float64)

    def everything(pool):
        def loss(images):
            return pool(images).tanh().square().sum()

        return [vmap(grad(loss))(x), jvp(grad(loss), (x[0],), (v[0],))[1]]

    for ours, theirs in zip(everything(AveragePool()), everything(nn.AvgPool2d(2)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_a_network_in_bfloat16_or_under_a_counter_pools_as_torch_does():
    torch.manual_seed(0)
    network = initialised(ConvNet(depth=2, width=8), (3, 16, 16), 10, torch.Generator().manual_seed(0))
    plain = copy.deepcopy(network)
    for place, layer in enumerate(plain):
        if isinstance(layer, AveragePool):
            plain[place] = nn.AvgPool2d(2)
    assert str(plain) == str(network) and any(isinstance(layer, AveragePool) for layer in network)
    x, theta = torch.randn(4, 3, 16, 16), flatten(network)
    assert torch.equal(FlatNetwork(network, "bf16").logits(theta, x), FlatNetwork(plain, "bf16").logits(theta, x))
    totals = []
    for one in (network, plain):
        with FlopCounterMode(display=False) as counter:
            one(x)
        totals.append(counter.get_total_flops())
    assert totals[0] == totals[1] > 0


def test_what_is_made_without_gradients_serves_those_with_them():
    x = torch.randn(2, 2, 12, 12)
    with torch.inference_mode():
        AveragePool()(x)
    leaf = x.clone().requires_grad_()
    AveragePool()(leaf).sum().backward()
    assert torch.equal(leaf.grad, torch.full_like(leaf, 0.25))


def test_students_are_copies_that_pool_alike():
    network = initialised(ConvNet(depth=1, width=4), (1, 8, 8), 3, torch.Generator().manual_seed(0))
    theta, x = flatten(network), torch.randn(2, 1, 8, 8)
    assert torch.equal(Student(network).logits(theta, x), network(x))
