"""Covariances between nearby positions of images, as convolutional kernels need them, and what layers do to them.

A band (Dy, Dx, H, W, ...) holds at [dy, dx, h, w] the covariance of position (h, w) of the one image with
(h + dy - ry, w + dx - rx) of the other, and 0 where that is outside; Dy = 2 ry + 1, Dx = 2 rx + 1. The last axes
are images or pairs, side by side in memory, so that every shift moves whole stretches of it. With the radii H - 1
and W - 1 the band is the whole four-dimensional covariance.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Radii = tuple[int, int]


def radii_of(band: Tensor) -> Radii:
    """(ry, rx) of a band."""
    return len(band) // 2, band.shape[1] // 2


def shifted(maps: Tensor, radii: Radii) -> Tensor:
    """A view (Dy, Dx, H, W, ...) of ``maps`` (H, W, ...) that reads each at every offset; 0 outside."""
    height, width = maps.shape[:2]
    rest = (0, 0) * (maps.ndim - 2)
    padded = F.pad(maps, (*rest, radii[1], radii[1], radii[0], radii[0]))
    return padded.unfold(0, height, 1).unfold(1, width, 1).movedim((-2, -1), (2, 3))


def shifted_back(band: Tensor) -> Tensor:
    """The adjoint of `shifted`: (H, W, ...), each position the sum of all places that read it."""
    (num_y, num_x, height, width), rest = band.shape[:4], band.shape[4:]
    rows = band.new_zeros((num_y, height, width + num_x - 1, *rest))
    for dx in range(num_x):
        rows[:, :, dx : dx + width] += band[:, dx]
    maps = band.new_zeros((height + num_y - 1, width + num_x - 1, *rest))
    for dy in range(num_y):
        maps[dy : dy + height] += rows[dy]
    return maps[num_y // 2 : num_y // 2 + height, num_x // 2 : num_x // 2 + width]


def inside(band: Tensor) -> Tensor:
    """(Dy, Dx, H, W, 1, ...) of the band's dtype: 1 where both positions are inside their images, else 0."""
    axes = []
    for radius, size in zip(radii_of(band), band.shape[2:4], strict=True):
        other = torch.arange(size, device=band.device) + torch.arange(-radius, radius + 1, device=band.device)[:, None]
        axes.append((other >= 0) & (other < size))
    both = axes[0][:, None, :, None] & axes[1][None, :, None, :]
    return both.reshape(*both.shape, *[1] * (band.ndim - 4)).to(band.dtype)


def windows(band: Tensor) -> Tensor:
    """Sums over the nine shifts of both positions together, by one pixel at most. Its own adjoint."""
    rest = (0, 0) * (band.ndim - 4)
    padded = F.pad(band, (*rest, 1, 1, 1, 1))
    rows = (padded[:, :, :-2] + padded[:, :, 1:-1]).add_(padded[:, :, 2:])
    return (rows[:, :, :, :-2] + rows[:, :, :, 1:-1]).add_(rows[:, :, :, 2:])


def pooled(band: Tensor) -> Tensor:
    """Average pooling 2x2 of both images: radius r becomes (r - 1) // 2; an odd last row or column is dropped."""
    small = _pooled_along(_pooled_along(band, 0), 1)
    # The last row, which is dropped, was read as the other side of what is now outside.
    return small if _even(band.shape[2:4]) else small * inside(small)


def pooled_back(pooled_band: Tensor, radii: Radii, sizes: tuple[int, int]) -> Tensor:
    """The adjoint of `pooled`, to a band of these radii and of maps of these sizes."""
    small = pooled_band if _even(sizes) else pooled_band * inside(pooled_band)
    return _pooled_back_along(_pooled_back_along(small, 1, radii[1], sizes[1]), 0, radii[0], sizes[0])


def _even(sizes: Sequence[int]) -> bool:
    return all(size % 2 == 0 for size in sizes)


def _quarters(axis: int, radius: int, size: int) -> list[tuple[slice, ...]]:
    """What the four pairs of pixels in a pair of windows read: even or odd rows, at every second offset."""
    num_offsets, pairs = 2 * ((radius - 1) // 2) + 1, size // 2 * 2
    first = radius - num_offsets + 1
    every = slice(None)
    quarters: list[tuple[slice, ...]] = []
    for row in (0, 1):
        for other in (0, 1):
            start = first + other - row
            offsets, rows = slice(start, start + 2 * num_offsets - 1, 2), slice(row, pairs, 2)
            quarters.append((offsets, every, rows, every) if axis == 0 else (every, offsets, every, rows))
    return quarters


def _pooled_along(band: Tensor, axis: int) -> Tensor:
    a, b, c, d = (band[quarter] for quarter in _quarters(axis, radii_of(band)[axis], band.shape[2 + axis]))
    return (a + b).add_(c).add_(d).mul_(0.25)


def _pooled_back_along(pooled_band: Tensor, axis: int, radius: int, size: int) -> Tensor:
    shape = list(pooled_band.shape)
    shape[axis], shape[2 + axis] = 2 * radius + 1, size
    band, part = pooled_band.new_zeros(shape), pooled_band * 0.25
    for quarter in _quarters(axis, radius, size):
        band[quarter] = part
    return band
