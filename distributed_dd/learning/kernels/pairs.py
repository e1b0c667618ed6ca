"""The sweeps over pairs as one differentiable function, compiled or not."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from distributed_dd.learning.kernels.band import shifted_back
from distributed_dd.learning.kernels.kernel import Which
from distributed_dd.learning.kernels.pair_sweeps import Plan, backward, forward


def pair_values(
    plan: Plan,
    which: Which,
    x_nCHW: Tensor,
    y_mCHW: Tensor,
    variances_x: tuple[Tensor, ...],
    variances_y: tuple[Tensor, ...],
    compiled: bool,
) -> Tensor:
    """The kernel (n, m) of a convolutional network; variances (n, H, W) at each ReLU."""
    return _Pairs.apply(plan, which, compiled, x_nCHW, y_mCHW, *variances_x, *variances_y)


@cache
def _sweeps(compiled: bool) -> tuple[Callable, Callable]:
    if not compiled:
        return forward, backward
    # Blocks share one shape; code for any shape would be slower for all.
    return torch.compile(forward, dynamic=False), torch.compile(backward, dynamic=False)


class _Pairs(Function):
    @staticmethod
    def forward(ctx: Any, plan: Plan, which: Which, compiled: bool, *images_and_variances: Tensor) -> Tensor:
        ctx.plan, ctx.compiled = plan, compiled
        ctx.save_for_backward(*images_and_variances)
        values_nm, kept = _sweeps(compiled)[0](plan, which, *_sides(images_and_variances))
        ctx.kept = kept if any(ctx.needs_input_grad) else None
        return values_nm

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_values_nm: Tensor) -> tuple[Tensor | None, ...]:
        num_relus = len(ctx.saved_tensors) // 2 - 1
        of_x, of_y = slice(2, 2 + num_relus), slice(2 + num_relus, None)
        needs = ctx.needs_input_grad[3:]
        sides = needs[0] or any(needs[of_x]), needs[1] or any(needs[of_y])
        by_x, by_y = _sweeps(ctx.compiled)[1](ctx.plan, by_values_nm, *_sides(ctx.saved_tensors), ctx.kept, sides)
        by_x_nCHW, by_variances_x = _gradients(by_x, ctx.saved_tensors[of_x])
        by_y_mCHW, by_variances_y = _gradients([shifted_back(band) for band in by_y], ctx.saved_tensors[of_y])
        return None, None, None, by_x_nCHW, by_y_mCHW, *by_variances_x, *by_variances_y


def _gradients(maps_HWn: list[Tensor], variances: tuple[Tensor, ...]) -> tuple[Tensor | None, Sequence[Tensor | None]]:
    """By the images and by their variances, from what `backward` gives for one side; None where it gives nothing."""
    if not maps_HWn:
        return None, [None] * len(variances)
    by_logs, by_channels = maps_HWn[: len(variances)], maps_HWn[len(variances) :]
    by_variances = [by_log.movedim(-1, 0) / own for by_log, own in zip(by_logs, variances, strict=True)]
    return torch.stack(by_channels).movedim(-1, 0), by_variances


def _sides(tensors: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    """Images and variances, each with the images as the last axis."""
    x_CHWn, y_CHWm, *variances = (tensor.movedim(0, -1).contiguous() for tensor in tensors)
    num_relus = len(variances) // 2
    return x_CHWn, y_CHWm, variances[:num_relus], variances[num_relus:]
