"""Kernel matrices in blocks of pairs: the same numbers and gradients, in memory that does not grow."""

import pytest
import torch

from distributed_dd.learning.kernels import Convolutional, FullyConnected
from distributed_dd.learning.kernels.blocks import kernel_matrix, kernel_pullback, pairs_within
from distributed_dd.outer.live_bytes import peak_live_bytes
from tests.references.plain_kernel import images

TWO_BLOCKS = Convolutional(blocks=(1, 1))

SOME = pytest.mark.parametrize("kernel", [FullyConnected(2), TWO_BLOCKS], ids=["fc", "conv"])
WHICH = pytest.mark.parametrize("which", ["ntk", "nngp"])
BLOCKS = pytest.mark.parametrize("block_pairs", [1, 4, 7, 1000])


def close(ours, theirs, limit):
    return (ours - theirs).abs().max() <= limit * theirs.abs().max()


@SOME
@WHICH
@BLOCKS
def test_blocks_are_the_matrix(kernel, which, block_pairs):
    """Catches blocks that overlap or leave a corner out, and a mirrored half that is not the other."""
    x, y = images(5), images(8, seed=1)
    expected = getattr(kernel, which)
    for longer, shorter in ((y, x), (x, y)):
        ours = kernel_matrix(kernel, longer, shorter, block_pairs=block_pairs, which=which)
        assert close(ours, expected(longer, shorter), 1e-12)
    itself = kernel_matrix(kernel, x, block_pairs=block_pairs, which=which)
    assert close(itself, expected(x), 1e-12)
    assert torch.equal(itself, itself.T)


@SOME
@WHICH
@BLOCKS
def test_pulling_back_is_autograd(kernel, which, block_pairs):
    """Catches a block's gradient that is lost, counted twice, or does not go through the variances."""
    x, y = images(5).requires_grad_(), images(8, seed=1).requires_grad_()
    of_pairs, of_x = images(5, (8,), seed=2), images(5, (5,), seed=3)  # that of x is not symmetric
    expected = torch.autograd.grad((of_pairs * getattr(kernel, which)(x, y)).sum(), (x, y))
    settings = {"block_pairs": block_pairs, "which": which}
    for ours, theirs in zip(kernel_pullback(kernel, x, y, of_pairs, **settings), expected, strict=True):
        assert close(ours, theirs, 1e-12)
    (expected_x,) = torch.autograd.grad((of_x * getattr(kernel, which)(x)).sum(), x)
    ours_x, nothing = kernel_pullback(kernel, x, None, of_x, **settings)
    assert nothing is None and close(ours_x, expected_x, 1e-12)
    through = torch.autograd.grad((of_x * kernel_matrix(kernel, x, **settings)).sum(), x)[0]
    assert torch.equal(through, ours_x)


@SOME
def test_a_side_that_is_not_wanted_is_left_out(kernel):
    x, y, given = images(3), images(4, seed=1), images(3, (4,), seed=2)
    both = kernel_pullback(kernel, x, y, given, block_pairs=5)
    first, none = kernel_pullback(kernel, x, y, given, block_pairs=5, sides=(True, False))
    assert none is None and torch.equal(first, both[0])
    none, second = kernel_pullback(kernel, x, y, given, block_pairs=5, sides=(False, True))
    assert none is None and torch.equal(second, both[1])
    leaf = y.clone().requires_grad_()
    (kernel_matrix(kernel, x, leaf, block_pairs=5) * given).sum().backward()
    assert torch.equal(leaf.grad, both[1])


def test_each_pair_of_a_set_with_itself_is_made_once(monkeypatch):
    """Catches a symmetric matrix that costs as much as any other."""
    pairs = []
    values = FullyConnected.values

    def counted(self, x, y, *rest):
        pairs.append(len(x) * len(y))
        return values(self, x, y, *rest)

    monkeypatch.setattr(FullyConnected, "values", counted)
    kernel_matrix(FullyConnected(1), images(10), block_pairs=1)
    assert sum(pairs) == 55


@pytest.mark.parametrize("kernel", [FullyConnected(2), TWO_BLOCKS, Convolutional(), Convolutional(readout="global")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_block_takes_what_is_announced(kernel, dtype):
    """Catches what a ReLU keeps beyond its two bands, and blocks too large for their bytes."""
    x, y = images(12, dtype=dtype), images(16, seed=1, dtype=dtype)
    if isinstance(kernel, FullyConnected):
        x, y = x.repeat(40, 1, 1, 1), y.repeat(40, 1, 1, 1)  # or a pair is little beside its images
    prepared = kernel.prepared(x), kernel.prepared(y)

    def gradient():
        leaves = [tensor.clone().requires_grad_() for tensor in (x, *prepared[0])]
        values = kernel.values(leaves[0], y, tuple(leaves[1:]), prepared[1], "ntk")
        torch.autograd.grad(values.sum(), leaves)

    announced = len(x) * len(y) * kernel.bytes_per_pair((2, 8, 8), x.element_size())
    peak = peak_live_bytes(gradient)
    assert 0.6 * announced < peak < announced
    assert pairs_within(kernel, x, announced) == len(x) * len(y)


def test_memory_is_that_of_one_block():
    """Catches graphs of all blocks kept at once, also of what is prepared of each image."""
    block_pairs = 16

    def peaks(number):
        x, y = images(number).requires_grad_(), images(number, seed=1)
        in_blocks = peak_live_bytes(lambda: kernel_matrix(TWO_BLOCKS, x, y, block_pairs=block_pairs).sum().backward())
        return in_blocks, peak_live_bytes(lambda: TWO_BLOCKS.ntk(x, y).sum().backward())

    (few, few_at_once), (many, many_at_once) = peaks(4), peaks(16)
    assert many < 1.25 * few  # images and gradients are more
    assert many_at_once > 8 * few_at_once
