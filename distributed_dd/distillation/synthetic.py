"""The synthetic set as an ordinary module, one block a class, for engines that shard parameters."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class _Rows(torch.autograd.Function):
    """Some rows of a parameter, copied: a view would hold the whole block, also after it was freed."""

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, passed: Tensor, first: int, last: int) -> Tensor:
        ctx.shape, ctx.rows = parameter.shape, (first, last)
        return parameter[first:last].clone()

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        first, last = ctx.rows
        whole = given
        if len(given) != ctx.shape[0]:
            whole = given.new_zeros(ctx.shape)
            whole[first:last] = given
        return whole, given.new_zeros(1), None, None


class ClassBlock(nn.Module):
    """Images, and label logits if they are learned, of one class."""

    def __init__(self, images_cCHW: Tensor, labels_cK: Tensor | None) -> None:
        super().__init__()
        self.images = nn.Parameter(images_cCHW)
        self.labels = None if labels_cK is None else nn.Parameter(labels_cK)

    def forward(self, passed: Tensor, first: int, last: int) -> tuple[Tensor, ...]:
        """Copies of rows first .. last. ``passed`` needs a gradient (1,), and gets zero.

        Engines free a block once the gradient of its input is computed: without such an input they would keep
        all blocks to the end of the backward pass.
        """
        parts = [self.images] + ([] if self.labels is None else [self.labels])
        return tuple(_Rows.apply(part, passed, first, last) for part in parts)


class SyntheticSet(nn.Module):
    """Images, learned label logits and student learning rate as parameters.

    One module for each class, so that an engine that shards parameters gathers one block at a time.
    """

    def __init__(self, blocks: Iterable[tuple[Tensor, Tensor | None]], learning_rate: Tensor) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        self.sizes: list[int] = []
        for images, labels in blocks:
            self.sizes.append(len(images))
            self.blocks.append(ClassBlock(images, labels))
        # One number in a vector: sharded engines cannot cut a scalar.
        self.learning_rate = nn.Parameter(learning_rate.reshape(1))

    def forward(self, first: int, last: int) -> tuple[Tensor, Tensor | None, Tensor]:
        """Images and labels of rows first .. last of the set, and the learning rate.

        Every block is called, also where it has none of these rows, so that all ranks gather alike and
        every parameter takes part in the step: momentum moves also those that no batch held.
        """
        images, labels, start = [], [], 0
        passed = torch.zeros(1, device=self.learning_rate.device, requires_grad=True)
        for block, size in zip(self.blocks, self.sizes, strict=True):
            given = block(passed, *(min(max(edge - start, 0), size) for edge in (first, last)))
            images.append(given[0])
            labels += given[1:]
            start += size
        return torch.cat(images), torch.cat(labels) if labels else None, self.learning_rate.clone()
