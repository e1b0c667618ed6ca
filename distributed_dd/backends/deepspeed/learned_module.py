"""Learned tensors as an ordinary module, rows in one block a class, for engines that shard parameters."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distributed_dd.learning.device import device


class _Rows(torch.autograd.Function):
    """Some rows of a parameter, copied: a view would hold the whole block, also after it was freed."""

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, passed: Tensor, first: int, last: int) -> Tensor:
        ctx.shape, ctx.rows = parameter.shape, (first, last)
        return parameter[first:last].clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        first, last = ctx.rows
        of_parameter = gradient
        if len(gradient) != ctx.shape[0]:
            of_parameter = gradient.new_zeros(ctx.shape)
            of_parameter[first:last] = gradient
        return of_parameter, gradient.new_zeros(1), None, None


class Block(nn.Module):
    """What an engine gathers at once: the learned rows of one class, or one flat tensor."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()
        self.size, self._names = len(tensors[0]), [f"part{number}" for number in range(len(tensors))]
        for name, tensor in zip(self._names, tensors, strict=True):
            self.register_parameter(name, nn.Parameter(tensor))

    @property
    def parts(self) -> list[nn.Parameter]:
        """The parameters, in the order of the tensors."""
        return [getattr(self, name) for name in self._names]

    def forward(self, passed: Tensor, first: int, last: int) -> tuple[Tensor, ...]:
        """Copies of rows first .. last of every part. ``passed`` needs a gradient (1,), and gets zero.

        Engines free a block once the gradient of its input is computed: without such an input they would keep
        all blocks to the end of the backward pass.
        """
        return tuple(_Rows.apply(part, passed, first, last) for part in self.parts)


class LearnedModule(nn.Module):
    """Row tensors, cut into blocks of rows, and flat tensors as parameters.

    One module for each block and each flat tensor, so that an engine that shards parameters gathers one at
    a time.

    Args:
        rows: names of the row tensors. blocks: for each class, in order, its rows of each of them.
        flats: the other tensors by name, as vectors: sharded engines cannot cut a scalar.
    """

    def __init__(self, rows: Sequence[str], blocks: Iterable[Sequence[Tensor]], flats: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.rows, self.flat_names = list(rows), list(flats)
        # The order of parameters decides where sums over ranks are cut, and with it their last bits.
        self.flats: Any = nn.ModuleList()
        self.blocks: Any = nn.ModuleList()
        for tensors in blocks:  # one by one: an engine may cut each before the next is there
            self.blocks.append(Block(tensors))
        for vector in flats.values():
            self.flats.append(Block([vector]))

    @property
    def names(self) -> list[str]:
        """What `forward` gives, in its order."""
        return self.rows + self.flat_names

    def pieces(self, name: str) -> list[nn.Parameter]:
        """The parameters that make up a learned tensor: one for each block, or for a flat tensor one."""
        if name in self.flat_names:
            return self.flats[self.flat_names.index(name)].parts
        return [block.parts[self.rows.index(name)] for block in self.blocks]

    def forward(self, first: int, last: int) -> tuple[Tensor, ...]:
        """Rows first .. last of every row tensor, and all flat tensors; copies.

        Every block is called, also where it has none of these rows, so that all ranks gather alike and
        every parameter takes part in the step: momentum moves also those that no batch held.
        """
        passed = torch.zeros(1, device=device(), requires_grad=True)
        parts, start = [], 0
        for block in self.blocks:
            parts.append(block(passed, *(min(max(edge - start, 0), block.size) for edge in (first, last))))
            start += block.size
        rows = [torch.cat(of_name) for of_name in zip(*parts, strict=True)]
        return (*rows, *(flat(passed, 0, flat.size)[0] for flat in self.flats))
