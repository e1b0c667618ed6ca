"""Differentiable Siamese augmentation (Zhao and Bilen, ICML 2021): draw, then apply.

`Siamese.draw` makes all random choices and returns a `Drawn`: a plain, differentiable function of a
batch. The same `Drawn` gives the same bits, so replay is exact by construction.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar, Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from distributed_dd.family import Family, require, setting
from distributed_dd.learning.chance import uniform

BRIGHTNESS, SATURATION, CONTRAST = 1.0, 2.0, 0.5
CROP_FRACTION, CUTOUT_FRACTION = 0.125, 0.5
SCALE_RATIO, ROTATE_DEGREES = 1.2, 15.0


class Drawn(Protocol):
    """One draw: a differentiable function images_BCHW -> images_BCHW."""

    def __call__(self, images_BCHW: Tensor, /) -> Tensor: ...


class Augmentation(Protocol):
    """Draws the parameters of one augmentation for a batch of ``count`` images."""

    def draw(self, rng: torch.Generator, count: int) -> Drawn: ...


class _Parameters:
    """Drawn parameters, one entry per image unless they were drawn for the whole batch."""

    def on(self, images: Tensor) -> list[Tensor]:
        """The fields on the images' device, integers kept and floats in the images' dtype."""
        values = [getattr(self, f.name) for f in fields(self)]  # type: ignore[arg-type]
        return [v.to(images.device, images.dtype if v.is_floating_point() else v.dtype) for v in values]

    def part(self, first: int, last: int) -> Self:
        """The same draw for these places of its batch alone."""
        values = [getattr(self, f.name) for f in fields(self)]  # type: ignore[arg-type]
        return type(self)(*(v if len(v) == 1 else v[first:last] for v in values))


@dataclass(frozen=True)
class Color(_Parameters):
    """Brightness, then saturation about the grey image, then contrast about the mean."""

    brightness: Tensor
    saturation: Tensor
    contrast: Tensor

    @classmethod
    def draw(cls, rng: torch.Generator, n: int) -> "Color":
        return cls(
            uniform(rng, n, -BRIGHTNESS / 2, BRIGHTNESS / 2),
            uniform(rng, n, 0, SATURATION),
            uniform(rng, n, CONTRAST, CONTRAST + 1),
        )

    def __call__(self, x: Tensor) -> Tensor:
        brightness, saturation, contrast = (v.view(-1, 1, 1, 1) for v in self.on(x))
        x = x + brightness
        grey = x.mean(1, keepdim=True)
        x = (x - grey) * saturation + grey
        mean = x.mean((1, 2, 3), keepdim=True)
        return (x - mean) * contrast + mean


@dataclass(frozen=True)
class Crop(_Parameters):
    """Shift by up to an eighth of the side, zeros coming in; fractions in [0, 1) of the range."""

    down: Tensor
    right: Tensor

    @classmethod
    def draw(cls, rng: torch.Generator, n: int) -> "Crop":
        return cls(uniform(rng, n, 0, 1), uniform(rng, n, 0, 1))

    def __call__(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        rows = _shifted(self.down, height).to(x.device)
        columns = _shifted(self.right, width).to(x.device)
        if len(rows) == 1:
            rows, columns = rows.expand(n, -1), columns.expand(n, -1)
        pad_y, pad_x = int(height * CROP_FRACTION + 0.5), int(width * CROP_FRACTION + 0.5)
        padded = F.pad(x, (pad_x, pad_x, pad_y, pad_y)).permute(0, 2, 3, 1)
        image = torch.arange(n, device=x.device)[:, None, None]
        return padded[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _shifted(fraction: Tensor, size: int) -> Tensor:
    """Indices (n, size) into an axis padded on both sides: offsets 0 .. 2 pad, all alike probable."""
    pad = int(size * CROP_FRACTION + 0.5)
    offset = (fraction * (2 * pad + 1)).long().clamp(max=2 * pad)
    return offset[:, None] + torch.arange(size)


@dataclass(frozen=True)
class Cutout(_Parameters):
    """A zero square of half the side, its centre anywhere; parts outside the image are lost."""

    side: ClassVar[float] = CUTOUT_FRACTION

    down: Tensor
    right: Tensor

    @classmethod
    def draw(cls, rng: torch.Generator, n: int) -> "Cutout":
        return cls(uniform(rng, n, 0, 1), uniform(rng, n, 0, 1))

    def __call__(self, x: Tensor) -> Tensor:
        rows = _covered(self.down, x.shape[2], self.side).to(x.device)
        columns = _covered(self.right, x.shape[3], self.side).to(x.device)
        hole = rows[:, None, :, None] & columns[:, None, None, :]
        return x * (~hole).to(x.dtype)


def _covered(fraction: Tensor, size: int, share: float) -> Tensor:
    """Boolean (n, size): which rows or columns the square, a share of the side wide, covers."""
    side = int(size * share + 0.5)
    centre = (fraction * (size + (1 - side % 2))).long()
    first = (centre - side // 2)[:, None]
    place = torch.arange(size)
    return (place >= first) & (place < first + side)


@dataclass(frozen=True)
class Flip(_Parameters):
    """Mirror left and right with probability one half."""

    mirrored: Tensor

    @classmethod
    def draw(cls, rng: torch.Generator, n: int) -> "Flip":
        return cls(uniform(rng, n, 0, 1) < 0.5)

    def __call__(self, x: Tensor) -> Tensor:
        (mirrored,) = self.on(x)
        return torch.where(mirrored.view(-1, 1, 1, 1), x.flip(3), x)


@dataclass(frozen=True)
class Scale(_Parameters):
    """Stretch both axes independently by 1/1.2 to 1.2."""

    x_factor: Tensor
    y_factor: Tensor

    @classmethod
    def draw(cls, rng: torch.Generator, n: int) -> "Scale":
        low, high = 1 / SCALE_RATIO, SCALE_RATIO
        return cls(uniform(rng, n, low, high), uniform(rng, n, low, high))

    def __call__(self, x: Tensor) -> Tensor:
        sx, sy = self.on(x)
        zero = torch.zeros_like(sx)
        return _resample(x, torch.stack([sx, zero, zero, zero, sy, zero], 1).view(-1, 2, 3))


@dataclass(frozen=True)
class Rotate(_Parameters):
    """Turn by up to 15 degrees either way."""

    radians: Tensor

    @classmethod
    def draw(cls, rng: torch.Generator, n: int) -> "Rotate":
        return cls(uniform(rng, n, -1, 1) * (ROTATE_DEGREES * torch.pi / 180))

    def __call__(self, x: Tensor) -> Tensor:
        (angle,) = self.on(x)
        cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        return _resample(x, torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3))


def _resample(x: Tensor, matrix_B23: Tensor) -> Tensor:
    matrix = matrix_B23.expand(len(x), 2, 3)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=True)
    return F.grid_sample(x, grid, padding_mode="zeros", align_corners=True)


OPERATIONS = {"color": Color, "crop": Crop, "cutout": Cutout, "flip": Flip, "scale": Scale, "rotate": Rotate}


@dataclass(frozen=True)
class Identity:
    """No augmentation."""

    def draw(self, rng: torch.Generator, count: int) -> Drawn:
        return _unchanged


def part_of(drawn: Drawn, first: int, last: int) -> Drawn:
    """``drawn`` for these places of its batch alone.

    Raises:
        TypeError: ``drawn`` has no ``part(first, last)`` to divide it by.
    """
    if drawn is _unchanged:
        return drawn
    part = getattr(drawn, "part", None)
    if part is None:
        raise TypeError(f"{type(drawn).__name__} cannot be divided over ranks: it has no part(first, last)")
    return part(first, last)


def _unchanged(images_BCHW: Tensor) -> Tensor:
    return images_BCHW


class _SmallCutout(Cutout):
    """A zero square of a quarter of the side."""

    side: ClassVar[float] = 0.25


@dataclass(frozen=True)
class Gentle:
    """FrePo's (NeurIPS 2022): one of flip, colour, zoom, turn, shift, cutout per batch, parameters for each image.

    Colours change by a quarter at most, the square is a quarter of the side; images are enlarged by up to a quarter,
    which is ours: how far the source zooms is not published.
    """

    flip: bool = setting("mirror left and right too; not for digits", True)

    def draw(self, rng: torch.Generator, count: int) -> Drawn:
        """One operation, uniformly, and its parameters for ``count`` images."""
        number = int(torch.randint(6 if self.flip else 5, (1,), generator=rng))
        if number == 0:
            spread = [uniform(rng, count, -0.25, 0.25) for _ in range(3)]
            return Color(spread[0], spread[1].exp(), spread[2].exp())
        if number == 1:
            factor = uniform(rng, count, 0.8, 1)
            return Scale(factor, factor)
        operations = (Rotate, Crop, _SmallCutout, Flip)
        return operations[number - 2].draw(rng, count)


def _check_known(operations: tuple[str, ...]) -> None:
    for name in operations:
        require(name in OPERATIONS, "operations", f"unknown {name!r}", ", ".join(OPERATIONS))
    require(bool(operations), "operations", "empty", ", ".join(OPERATIONS), "use kind: none")


@dataclass(frozen=True)
class Siamese:
    """DSA: one of the operations per batch, its parameters drawn for each image."""

    operations: tuple[str, ...] = setting("operations to draw from; leave out flip for digits", tuple(OPERATIONS))
    shared: bool = setting("draw one set of parameters for the whole batch", False)

    def __post_init__(self) -> None:
        _check_known(self.operations)

    def draw(self, rng: torch.Generator, count: int) -> Drawn:
        """One operation, uniformly, and its parameters for ``count`` images."""
        name = self.operations[int(torch.randint(len(self.operations), (1,), generator=rng))]
        make: Callable[[torch.Generator, int], Drawn] = OPERATIONS[name].draw  # type: ignore[attr-defined]
        return make(rng, 1 if self.shared else count)


@dataclass(frozen=True)
class _InTurn:
    """Several draws, one applied after the other."""

    parts: tuple[Drawn, ...]

    def __call__(self, x: Tensor) -> Tensor:
        for drawn in self.parts:
            x = drawn(x)
        return x

    def part(self, first: int, last: int) -> "_InTurn":
        """The same draws for these places of their batch alone."""
        return _InTurn(tuple(part_of(drawn, first, last) for drawn in self.parts))


@dataclass(frozen=True)
class InTurn:
    """Every one of the operations, in their order (Zhao et al., DiffAugment, NeurIPS 2020)."""

    operations: tuple[str, ...] = setting("operations, all applied to every image", ("color", "crop"))
    shared: bool = setting("draw one set of parameters for the whole batch", False)

    def __post_init__(self) -> None:
        _check_known(self.operations)

    def draw(self, rng: torch.Generator, count: int) -> Drawn:
        """Parameters of all operations for ``count`` images."""
        one_each = [Siamese((name,), self.shared) for name in self.operations]
        return _InTurn(tuple(operation.draw(rng, count) for operation in one_each))


AUGMENTATIONS = Family("augmentation", {"dsa": Siamese, "diffaugment": InTurn, "gentle": Gentle, "none": Identity})
