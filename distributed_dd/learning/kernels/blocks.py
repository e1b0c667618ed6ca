"""Kernel matrices in blocks of pairs: memory is that of one block, however many images there are.

The gradient takes two phases, as over ranks: the matrix is made without a graph; once the gradient by the matrix is
there, each block is made again with a graph, pulled back and dropped.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from distributed_dd.learning.kernels.kernel import Kernel, Which

Block = tuple[slice, slice]


def pairs_within(kernel: Kernel, images_nCHW: Tensor, num_bytes: int) -> int:
    """How many pairs of such images a block may have, its gradient included, to stay within these bytes; 1 or more."""
    channels, height, width = images_nCHW.shape[1:]
    return max(1, num_bytes // kernel.bytes_per_pair((channels, height, width), images_nCHW.element_size()))


def kernel_matrix(
    kernel: Kernel,
    x_nCHW: Tensor,
    y_mCHW: Tensor | None = None,
    *,
    block_pairs: int,
    which: Which = "ntk",
    compiled: bool = False,
) -> Tensor:
    """The kernel (n, m), differentiable once by both; ``y_mCHW`` None: of ``x_nCHW`` with itself, each pair once.

    Raises:
        ConfigError: the network does not fit the images.
    """
    return _InBlocks.apply(kernel, block_pairs, which, compiled, x_nCHW, y_mCHW)


def kernel_pullback(
    kernel: Kernel,
    x_nCHW: Tensor,
    y_mCHW: Tensor | None,
    by_kernel_nm: Tensor,
    *,
    block_pairs: int,
    which: Which = "ntk",
    compiled: bool = False,
    sides: tuple[bool, bool] = (True, True),
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of ``sum(by_kernel_nm * kernel_matrix)`` by x and by y, block by block.

    Args:
        y_mCHW: None: of x with itself; there is one gradient then.
        sides: which of the two are wanted; the other is None.
    """
    if not any(sides):
        return None, None
    x = _Side(kernel, x_nCHW.detach(), sides[0] or y_mCHW is None, block_pairs)
    y = x if y_mCHW is None else _Side(kernel, y_mCHW.detach(), sides[1], block_pairs)
    by_kernel_nm = by_kernel_nm.to(x_nCHW.dtype)
    if y is x:  # every pair is made once and stands in two places
        by_kernel_nm = torch.triu(by_kernel_nm) + torch.tril(by_kernel_nm, -1).T
    for rows, columns in _blocks(x.size, y.size, block_pairs, y is x):
        height, width = _shape(x.size, y.size, block_pairs) if compiled else (None, None)
        with torch.enable_grad():
            x_leaves, y_leaves = x.leaves(rows, height), y.leaves(columns, width)
            values = kernel.values(x_leaves[0], y_leaves[0], x_leaves[1:], y_leaves[1:], which, compiled)
        by_values = torch.zeros_like(values)
        by_block = by_kernel_nm[rows, columns]
        by_values[: len(by_block), : by_block.shape[1]] = by_block
        wanted = [leaf for leaf in (*x_leaves, *y_leaves) if leaf.requires_grad]
        gradients = list(torch.autograd.grad(values, wanted, by_values))
        if x.wanted:
            x.add(rows, gradients[: len(x_leaves)])
        if y.wanted:
            y.add(columns, gradients[-len(y_leaves) :])
    return x.gradient(), None if y is x else y.gradient()


class _Side:
    """The images on one side of the matrix, what is prepared of them, and the gradients by both."""

    def __init__(self, kernel: Kernel, images_nCHW: Tensor, wanted: bool, block_pairs: int) -> None:
        self.kernel, self.wanted, self.size, self.step = kernel, wanted, len(images_nCHW), block_pairs
        with torch.no_grad():
            parts = [kernel.prepared(part) for part in images_nCHW.split(block_pairs)]
        self.tensors = (images_nCHW, *(torch.cat(column) for column in zip(*parts, strict=True)))
        self.gradients = [torch.zeros_like(tensor) for tensor in self.tensors] if wanted else []

    def leaves(self, rows: slice, num_rows: int | None) -> tuple[Tensor, ...]:
        """Fresh leaves of these rows; the last is repeated up to ``num_rows``, for code compiled for so many."""
        indices = torch.arange(rows.start, rows.start + (num_rows or rows.stop - rows.start)).clamp_(max=rows.stop - 1)
        indices = indices.to(self.tensors[0].device)
        return tuple(tensor[indices].requires_grad_(self.wanted) for tensor in self.tensors)

    def add(self, rows: slice, gradients: list[Tensor]) -> None:
        """Add the gradients by `leaves`; those of repeated rows are 0."""
        for total, part in zip(self.gradients, gradients, strict=True):
            total[rows] += part[: rows.stop - rows.start]

    def gradient(self) -> Tensor | None:
        """By the images, what goes through the prepared tensors included; None where it is not wanted."""
        if not self.wanted:
            return None
        by_images, *by_prepared = self.gradients
        for start in range(0, self.size, self.step):
            rows = slice(start, start + self.step)
            with torch.enable_grad():
                leaf = self.tensors[0][rows].clone().requires_grad_()
                prepared = self.kernel.prepared(leaf)
            by_images[rows] += torch.autograd.grad(prepared, leaf, [part[rows] for part in by_prepared])[0]
        return by_images


class _InBlocks(Function):
    @staticmethod
    def forward(
        ctx: Any, kernel: Kernel, block_pairs: int, which: Which, compiled: bool, x_nCHW: Tensor, y_mCHW: Tensor | None
    ) -> Tensor:
        kernel.check((x_nCHW.shape[1], x_nCHW.shape[2], x_nCHW.shape[3]))
        ctx.arguments = kernel, block_pairs, which, compiled
        ctx.save_for_backward(x_nCHW, y_mCHW)
        x = _Side(kernel, x_nCHW.detach(), False, block_pairs)
        y = x if y_mCHW is None else _Side(kernel, y_mCHW.detach(), False, block_pairs)
        matrix_nm = x_nCHW.new_empty(x.size, y.size)
        for rows, columns in _blocks(x.size, y.size, block_pairs, y is x):
            height, width = _shape(x.size, y.size, block_pairs) if compiled else (None, None)
            x_leaves, y_leaves = x.leaves(rows, height), y.leaves(columns, width)
            values = kernel.values(x_leaves[0], y_leaves[0], x_leaves[1:], y_leaves[1:], which, compiled)
            matrix_nm[rows, columns] = values[: rows.stop - rows.start, : columns.stop - columns.start]
        return matrix_nm if y is not x else torch.triu(matrix_nm) + torch.triu(matrix_nm, 1).T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_kernel_nm: Tensor) -> tuple[Tensor | None, ...]:
        kernel, block_pairs, which, compiled = ctx.arguments
        x_nCHW, y_mCHW = ctx.saved_tensors
        by_x, by_y = kernel_pullback(
            kernel,
            x_nCHW,
            y_mCHW,
            by_kernel_nm,
            block_pairs=block_pairs,
            which=which,
            compiled=compiled,
            sides=(ctx.needs_input_grad[4], ctx.needs_input_grad[5]),
        )
        return None, None, None, None, by_x, by_y


def _shape(num_rows: int, num_columns: int, block_pairs: int) -> tuple[int, int]:
    """Rows and columns of a block: near a square, longer where the matrix ends before it is full."""
    rows = min(num_rows, max(1, int(block_pairs**0.5)))
    columns = min(num_columns, max(1, block_pairs // rows))
    return min(num_rows, max(1, block_pairs // columns)), columns


def _blocks(num_rows: int, num_columns: int, block_pairs: int, symmetric: bool) -> Iterator[Block]:
    """Blocks that cover the matrix; or, where it is symmetric, all at and above its diagonal."""
    if not num_rows or not num_columns:
        return
    height, width = _shape(num_rows, num_columns, block_pairs)
    for row in range(0, num_rows, height):
        for column in range(0, num_columns, width):
            rows, columns = (slice(row, min(row + height, num_rows)), slice(column, min(column + width, num_columns)))
            if not symmetric or columns.stop > rows.start:
                yield rows, columns
