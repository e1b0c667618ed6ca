"""Gradients that were made elsewhere, for engines that take them from a backward pass of their own."""

from typing import Any

import torch
from torch import Tensor


class GivenGradients(torch.autograd.Function):
    """A scalar whose backward returns ready-made gradients, so that an engine's own backward takes them."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: tuple[Tensor, ...], *tensors: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.detach().clone()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if outer.item() != 1:  # an engine that scales its loss; a copy of everything is worth avoiding
            gradients = tuple(gradient * outer for gradient in gradients)
        return (None, None, *gradients)
