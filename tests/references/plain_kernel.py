"""The kernels of a convolutional network, written down plainly: whole 4-D covariances, pair by pair, arccos."""

import math

import torch
from torch import Tensor

from distributed_dd.learning.chance import generator

STEPS = tuple[str, ...]


def images(number, shape=(2, 8, 8), seed=0, dtype=torch.float64) -> Tensor:
    """Random images of this shape."""
    return torch.randn(number, *shape, generator=generator(seed, "kernel images"), dtype=dtype)


def steps_of(kernel) -> STEPS:
    steps = []
    for count in kernel.blocks:
        steps += ["conv", "relu"] * count + ["pool"]
    return tuple(steps if kernel.last_pooling else steps[:-1])


def plain_kernel(steps: STEPS, everywhere: bool, x_nCHW: Tensor, y_mCHW: Tensor) -> tuple[Tensor, Tensor]:
    """NNGP and NTK (n, m), float64."""
    values = [[_pair(steps, everywhere, x, y) for y in y_mCHW] for x in x_nCHW]
    nngp, ntk = torch.tensor(values, dtype=torch.float64).movedim(-1, 0)
    return nngp, ntk


def _pair(steps: STEPS, everywhere: bool, x: Tensor, y: Tensor) -> tuple[float, float]:
    images = {"xx": (x, x), "xy": (x, y), "yy": (y, y)}
    covariances = {key: torch.einsum("chw,cij->hwij", a, b) / len(a) for key, (a, b) in images.items()}
    tangent = torch.zeros_like(covariances["xy"])
    for step in steps:
        if step == "conv":
            covariances = {key: 2 * _convolved(value) + 0.01 for key, value in covariances.items()}
            tangent = covariances["xy"] + 2 * _convolved(tangent)
        elif step == "relu":
            a, b = (torch.einsum("hwhw->hw", covariances[key]) for key in ("xx", "yy"))
            slopes = _slopes(covariances["xy"], a, b)
            tangent = tangent * slopes
            covariances = {
                "xx": _rectified(covariances["xx"], a, a),
                "xy": _rectified(covariances["xy"], a, b),
                "yy": _rectified(covariances["yy"], b, b),
            }
        else:
            covariances, tangent = {key: _pooled(value) for key, value in covariances.items()}, _pooled(tangent)
    read = torch.mean if everywhere else (lambda value: torch.einsum("hwhw->hw", value).mean())
    nngp = 2 * read(covariances["xy"]) + 0.01
    return float(nngp), float(nngp + 2 * read(tangent))


def _convolved(value: Tensor) -> Tensor:
    height, width = value.shape[:2]
    out = torch.zeros_like(value)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            rows = slice(max(0, -dy), min(height, height - dy)), slice(max(0, -dx), min(width, width - dx))
            moved = slice(max(0, dy), min(height, height + dy)), slice(max(0, dx), min(width, width + dx))
            out[(*rows, *rows)] += value[(*moved, *moved)]
    return out / 9


def _angle(value: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    norm = torch.einsum("hw,ij->hwij", a, b).sqrt()
    return torch.arccos((value / norm).clamp(-1, 1)), norm


def _rectified(value: Tensor, a: Tensor, b: Tensor) -> Tensor:
    angle, norm = _angle(value, a, b)
    return norm * (angle.sin() + (math.pi - angle) * angle.cos()) / (2 * math.pi)


def _slopes(value: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return (math.pi - _angle(value, a, b)[0]) / (2 * math.pi)


def _pooled(value: Tensor) -> Tensor:
    height, width = (size // 2 for size in value.shape[:2])
    even = value[: 2 * height, : 2 * width, : 2 * height, : 2 * width]
    return even.reshape(height, 2, width, 2, height, 2, width, 2).mean((1, 3, 5, 7))
