"""What a ReLU does to a Gaussian process: expectations over pairs of correlated normal variables.

c: the covariance of a pair; s: the product of its two variances; w = sqrt(s - c^2), the angle is atan2(w, c).
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

# Of the weights times their fan-in, and of the biases: the networks of KIP (Nguyen et al., ICLR 2021).
WEIGHT_VARIANCE, BIAS_VARIANCE = 2.0, 0.01

# A sine of the angle whose square is below this is taken for 0: rounding alone makes as much (9e-7 was seen in
# float32, of an image with itself), and its slope is infinite. Patches of one constant background are there too.
SMALLEST_SINE_SQUARED = {torch.float64: 1e-14, torch.float32: 2e-6}


def relu_expectations(c: Tensor, s: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """E[relu(u) relu(v)], and ``slope`` times E[relu'(u) relu'(v)], of pairs; all in the shape of ``c``.

    Cho and Saul (NeurIPS 2009), degrees 1 and 0. The angle comes from both legs: from its cosine alone, half of the
    digits are lost near 0. Where ``s`` is 0 the first is 0, and the second finite. First derivatives alone.
    """
    return _Expectations.apply(c, s, slope)


def expectations(c: Tensor, s: Tensor, slope: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """As `relu_expectations`, without a graph; ``slope`` None: the first of the two alone."""
    w, _ = _width(c, s)
    share = _share(c, w)
    first = w.mul_(0.5 / math.pi).addcmul_(share, c)
    return first, None if slope is None else share.mul_(slope)


def pulled_back(
    c: Tensor, s: Tensor, slope: Tensor | None, by_first: Tensor, by_second: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients by ``c``, by the logarithm of ``s``, and by ``slope``, from those by the two `expectations`.

    The logarithm, because nothing then is divided by ``s``, which is 0 outside of images.
    """
    w, apart = _width(c, s)
    by_log_s = (by_first * w).mul_(0.25 / math.pi)
    share = _share(c, w)
    if slope is None or by_second is None:
        return by_first * share, by_log_s, None
    # Along c the share rises by 1 / (2 pi w); a pair that is not apart sits at the kink, and gets 0.
    rise = (by_second * slope).mul_(0.5 / math.pi).div_(w).masked_fill_(~apart, 0.0)
    by_log_s.addcmul_(c, rise, value=-0.5)
    return rise.addcmul_(by_first, share), by_log_s, by_second * share


def _width(c: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """w, and where the pair is apart."""
    squared = torch.addcmul(s, c, c, value=-1)
    apart = squared > s * SMALLEST_SINE_SQUARED[c.dtype]
    return squared.mul_(apart).sqrt_(), apart


def _share(c: Tensor, w: Tensor) -> Tensor:
    """E[relu'(u) relu'(v)] = (pi - angle) / 2 pi, in [0, 1/2]: the share of draws where both are positive.

    ``atan2(w, c)`` is ``pi / 2 - atan(c / w)``, which takes half the time; the division may overflow to infinity.
    """
    ratio = c / w.clamp_min(torch.finfo(c.dtype).tiny)
    return ratio.atan_().mul_(0.5 / math.pi).add_(0.25)


class _Expectations(Function):
    """Keeps its three arguments alone; the angle is made anew in the backward pass."""

    @staticmethod
    def forward(ctx: Any, c: Tensor, s: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(c, s, slope)
        first, second = expectations(c, s, slope)
        assert second is not None
        return first, second

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_first: Tensor, by_second: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        c, s, slope = ctx.saved_tensors
        by_c, by_log_s, by_slope = pulled_back(c, s, slope, by_first, by_second)
        return by_c, by_log_s / s.clamp_min(torch.finfo(s.dtype).tiny), by_slope
