"""The kernels of convolutional networks: conv 3x3, ReLU and average pooling 2x2, in blocks; then one dense layer."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from distributed_dd.family import require, setting
from distributed_dd.learning.kernels.arc_cosine import relu_expectations
from distributed_dd.learning.kernels.band import Radii, pooled, shifted
from distributed_dd.learning.kernels.kernel import Kernel, Shape, Which
from distributed_dd.learning.kernels.pair_sweeps import Plan, Step, convolved, products
from distributed_dd.learning.kernels.pairs import pair_values

Readout = Literal["flatten", "global"]


@dataclass(frozen=True, kw_only=True)
class Convolutional(Kernel):
    """A plain ConvNet, infinitely wide: conv 3x3 and ReLU in blocks with average pooling between; no norm.

    The default is the ConvNet of KIP (Nguyen et al., NeurIPS 2021). Without its first convolution, `blocks` is
    [1, 1, 1]; Myrtle5 is blocks [2, 1, 1], `last_pooling` false, `readout` global.
    """

    blocks: tuple[int, ...] = setting(
        "convolutions, each with its ReLU, in every block; average pooling between blocks halves height and width",
        (2, 1, 1),
        at_least=1,
        at_most=100,
    )
    last_pooling: bool = setting("pooling after the last block too", True)
    readout: Readout = setting(
        "flatten: the last layer has weights for every position; global: they are averaged first (slower)", "flatten"
    )

    def __post_init__(self) -> None:
        require(1 <= len(self.blocks) <= 20, "blocks", f"got {len(self.blocks)} blocks", "1 to 20")

    @property
    def num_poolings(self) -> int:
        """How often height and width are halved."""
        return len(self.blocks) - (not self.last_pooling)

    def check(self, image_shape: Shape) -> None:
        """Raises: ConfigError: the network halves images of this shape to nothing."""
        _, height, width = image_shape
        require(
            min(height, width) >> self.num_poolings >= 1,
            "kernel.blocks",
            f"{self.num_poolings} poolings, one after each block, halve {height}x{width} images to nothing",
            f"at most {min(height, width).bit_length() - 1} poolings: fewer blocks, or last_pooling=false",
        )

    def describe(self) -> str:
        """The network in words."""
        layers = [f"{count} conv" for count in self.blocks]
        words = ", pool, ".join(layers) + (", pool" if self.last_pooling else "")
        return f"{words}, {'global pooling' if self.readout == 'global' else 'flatten'}, dense; of infinite width"

    def pairs_cost(self, image_shape: Shape) -> int:
        """Pairs of positions within the band, summed over the ReLUs."""
        plan = self.plan(*image_shape[1:])
        total = 0
        for i in plan.at("relu"):
            counts = (
                sum(size - abs(offset) for offset in range(-radius, radius + 1))
                for size, radius in zip(plan.sizes[i], plan.radii[i], strict=True)
            )
            total += next(counts) * next(counts)
        return total

    def bytes_per_pair(self, image_shape: Shape, itemsize: int) -> int:
        """Two bands a ReLU are kept, beside those at work on the largest."""
        plan = self.plan(*image_shape[1:])
        bands = [_band_size(plan, i) for i in plan.at("relu")]
        return (2 * sum(bands) + WORKING_BANDS * max(bands)) * itemsize

    def plan(self, height: int, width: int, whole: bool = False) -> Plan:
        """The steps on images of this size; ``whole``: with all covariances, also those that nobody reads."""
        return _plan(self, height, width, whole)

    def prepared(self, images_nCHW: Tensor) -> tuple[Tensor, ...]:
        """The variance (n, H, W) of each position before each ReLU.

        From the covariances within each image, of those positions that pooling brings together before the last ReLU.
        """
        plan = _within_plan(self, images_nCHW.shape[2], images_nCHW.shape[3])
        images_CHWn = images_nCHW.movedim(0, -1)
        band = products(images_CHWn, [shifted(maps, plan.radii[0]) for maps in images_CHWn])
        variances = []
        for i, step in enumerate(plan.steps):
            if step == "conv":
                band = convolved(band)
            elif step == "relu":
                ry, rx = plan.radii[i]
                maps = band[ry, rx]
                variances.append(maps.movedim(-1, 0))
                band, _ = relu_expectations(band, maps * shifted(maps, plan.radii[i]), torch.zeros_like(band))
            else:
                band = pooled(band)
        return tuple(variances)

    def values(
        self,
        x_nCHW: Tensor,
        y_mCHW: Tensor,
        prepared_x: tuple[Tensor, ...],
        prepared_y: tuple[Tensor, ...],
        which: Which,
        compiled: bool = False,
    ) -> Tensor:
        """(n, m)."""
        plan = self.plan(x_nCHW.shape[2], x_nCHW.shape[3])
        if len(x_nCHW) > len(y_mCHW):  # long stretches of memory are faster: the longer side is the last axis
            return pair_values(plan, which, y_mCHW, x_nCHW, prepared_y, prepared_x, compiled).T
        return pair_values(plan, which, x_nCHW, y_mCHW, prepared_x, prepared_y, compiled)


# Bands alive at once while a ReLU is pulled back.
WORKING_BANDS = 9


def _band_size(plan: Plan, step: int) -> int:
    (height, width), (ry, rx) = plan.sizes[step], plan.radii[step]
    return (2 * ry + 1) * (2 * rx + 1) * height * width


def _steps(kernel: Convolutional) -> tuple[Step, ...]:
    steps: list[Step] = []
    for block, count in enumerate(kernel.blocks):
        steps += ["conv", "relu"] * count
        steps += ["pool"] if block < kernel.num_poolings else []
    return tuple(steps)


@lru_cache(maxsize=16)
def _plan(kernel: Convolutional, height: int, width: int, whole: bool) -> Plan:
    """The band is as wide as the read-out looks: pooling of radius r takes 2 r + 1, and the image limits it."""
    everywhere = kernel.readout == "global"
    return _with_radii(_steps(kernel), height, width, whole or everywhere, everywhere)


@lru_cache(maxsize=16)
def _within_plan(kernel: Convolutional, height: int, width: int) -> Plan:
    """Up to the last ReLU, which reads the offset 0 alone, whatever is read out later."""
    steps = _steps(kernel)
    last = max(i for i, step in enumerate(steps) if step == "relu")
    return _with_radii(steps[: last + 1], height, width, False, False)


def _with_radii(steps: tuple[Step, ...], height: int, width: int, whole: bool, everywhere: bool) -> Plan:
    sizes = [(height, width)]
    for step in steps:
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2) if step == "pool" else sizes[-1])
    radii: list[Radii] = [(sizes[-1][0] - 1, sizes[-1][1] - 1) if whole else (0, 0)]
    for step, (rows, columns) in zip(reversed(steps), reversed(sizes[:-1]), strict=True):
        ry, rx = radii[-1]
        wider = (rows - 1, columns - 1) if whole else (min(2 * ry + 1, rows - 1), min(2 * rx + 1, columns - 1))
        radii.append(wider if step == "pool" else radii[-1])
    return Plan(steps=steps, sizes=tuple(sizes), radii=tuple(radii[::-1]), everywhere=everywhere)
