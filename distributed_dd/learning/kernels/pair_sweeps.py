"""The recursion of a convolutional kernel over pairs of images: a sweep forward, and one back for the gradient.

Only what each ReLU takes in is kept in between: two bands a ReLU. All else is made anew on the way back. Both
sweeps are plain functions of tensors, so that each can be compiled. The recursion within an image does the same
operations in the same order: of an image with itself, a b - c^2 is then 0 to the last digit, as it should.

Legend: n, m: images on either side; C: channels; band: (Dy, Dx, H, W, n, m), see `band`.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from distributed_dd.learning.kernels.arc_cosine import BIAS_VARIANCE, WEIGHT_VARIANCE, expectations, pulled_back
from distributed_dd.learning.kernels.band import Radii, inside, pooled, pooled_back, shifted, windows
from distributed_dd.learning.kernels.kernel import Which

Step = Literal["conv", "relu", "pool"]
WINDOW_WEIGHT = WEIGHT_VARIANCE / 9
Kept = list[tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Plan:
    """The layers before the read-out, and what part of the covariance each must know.

    Attributes:
        sizes, radii: (height, width) of the maps and radii of the band before each step, and after the last.
        everywhere: the read-out averages over all pairs of positions, else over equal positions.
    """

    steps: tuple[Step, ...]
    sizes: tuple[tuple[int, int], ...]
    radii: tuple[Radii, ...]
    everywhere: bool

    def at(self, step: Step) -> list[int]:
        """Where this step stands."""
        return [i for i, name in enumerate(self.steps) if name == step]


def forward(
    plan: Plan,
    which: Which,
    x_CHWn: Tensor,
    y_CHWm: Tensor,
    variances_x: list[Tensor],
    variances_y: list[Tensor],
) -> tuple[Tensor, Kept]:
    """The kernel (n, m), and the covariances and tangents that the ReLUs took in.

    Args:
        variances_x: (H, W, n) of each image at each ReLU.
    """
    band, tangent = _products(plan, x_CHWn, y_CHWm), None
    kept: Kept = []
    for i, step in enumerate(plan.steps):
        if step == "conv":
            band = convolved(band)
            if which == "ntk":
                tangent = band if tangent is None else convolved(tangent, band)
        elif step == "relu":
            kept.append((band, tangent))
            spread = _spread(variances_x[len(kept) - 1], variances_y[len(kept) - 1], plan.radii[i])
            band, tangent = expectations(band, spread, tangent)
        else:
            band, tangent = pooled(band), None if tangent is None else pooled(tangent)
    covariance_nm = WEIGHT_VARIANCE * _read(plan, band) + BIAS_VARIANCE
    if tangent is None:
        return covariance_nm, kept
    return covariance_nm + WEIGHT_VARIANCE * _read(plan, tangent), kept


def backward(
    plan: Plan,
    by_values_nm: Tensor,
    x_CHWn: Tensor,
    y_CHWm: Tensor,
    variances_x: list[Tensor],
    variances_y: list[Tensor],
    kept: Kept,
    sides: tuple[bool, bool],
) -> tuple[list[Tensor], list[Tensor]]:
    """From the gradient by the kernel (n, m), those by the logarithm of the variances at each ReLU, and by each
    channel of the images: for x (H, W, n), for y (Dy, Dx, H, W, m), there still at every offset.

    Args:
        sides: whether those of x are wanted, and those of y; what is not is an empty list.
    """
    by_band = _read_back(plan, WEIGHT_VARIANCE * by_values_nm)
    by_tangent = by_band if kept[0][1] is not None else None
    by_x: list[Tensor] = []
    by_y: list[Tensor] = []
    left = len(kept)
    for i, step in reversed(list(enumerate(plan.steps))):
        if step == "conv":
            mask = WINDOW_WEIGHT * inside(by_band)
            if by_tangent is not None:
                by_band = by_band + by_tangent
                by_tangent = windows(by_tangent * mask) if i else None
            by_band = windows(by_band * mask)
        elif step == "relu":
            left -= 1
            band, tangent = kept[left]
            spread = _spread(variances_x[left], variances_y[left], plan.radii[i])
            by_band, by_log_spread, by_tangent = pulled_back(band, spread, tangent, by_band, by_tangent)
            by_x += [by_log_spread.sum((0, 1, 5))] if sides[0] else []
            by_y += [by_log_spread.sum(4)] if sides[1] else []
        else:
            by_band = pooled_back(by_band, plan.radii[i], plan.sizes[i])
            by_tangent = None if by_tangent is None else pooled_back(by_tangent, plan.radii[i], plan.sizes[i])
    by_x, by_y = by_x[::-1], by_y[::-1]
    by_band = by_band / len(x_CHWn)
    for x_HWn, y_HWm in zip(x_CHWn, y_CHWm, strict=True):
        if sides[0]:
            by_x.append((by_band * shifted(y_HWm, plan.radii[0])[..., None, :]).sum((0, 1, 5)))
        if sides[1]:
            by_y.append((by_band * x_HWn[..., None]).sum(4))
    return by_x, by_y


def convolved(band: Tensor, added: Tensor | None = None) -> Tensor:
    """What a convolution makes of covariances, or, with those it made ``added``, of tangents."""
    mask = inside(band)
    return torch.addcmul(BIAS_VARIANCE * mask if added is None else added, windows(band), WINDOW_WEIGHT * mask)


def _products(plan: Plan, x_CHWn: Tensor, y_CHWm: Tensor) -> Tensor:
    """The mean over channels of the products of pixels."""
    return products(x_CHWn[..., None], [shifted(maps, plan.radii[0])[..., None, :] for maps in y_CHWm])


def products(x: Tensor, others: list[Tensor]) -> Tensor:
    """The mean over channels, the first axis, of products with one other of each."""
    scaled = x / len(x)
    band = scaled[0] * others[0]
    for maps, other in zip(scaled[1:], others[1:], strict=True):
        band = torch.addcmul(band, maps, other)
    return band


def _spread(x_HWn: Tensor, y_HWm: Tensor, radii: Radii) -> Tensor:
    """Products of a map of the one image with the other's at every offset: a band."""
    return x_HWn[..., None] * shifted(y_HWm, radii)[..., None, :]


def _read(plan: Plan, band: Tensor) -> Tensor:
    """The mean (n, m) that the last layer sees."""
    if plan.everywhere:
        height, width = plan.sizes[-1]
        return band.sum((0, 1, 2, 3)) / (height * width) ** 2
    ry, rx = plan.radii[-1]
    return band[ry, rx].mean((0, 1))


def _read_back(plan: Plan, by_mean_nm: Tensor) -> Tensor:
    (height, width), (ry, rx) = plan.sizes[-1], plan.radii[-1]
    shape = (2 * ry + 1, 2 * rx + 1, height, width, *by_mean_nm.shape)
    if plan.everywhere:  # what falls outside is multiplied by 0 further on
        return (by_mean_nm / (height * width) ** 2).expand(shape)
    band = by_mean_nm.new_zeros(shape)
    band[ry, rx] = by_mean_nm / (height * width)
    return band
