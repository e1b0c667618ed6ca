"""One law for methods that compare statistics: the gradient over ranks and blocks is that of one process.

Every loss here has the form L(S) = sum_r l_r(u) with a statistic u = sum_r u_r(S_r) that is additive over rows of
the set. Then dL/dS_r = (du_r/dS_r)^T v with v = sum_r dl_r/du: a rank makes its part of u, one all-reduce; it
computes l_r and dl_r/du, one all-reduce; it pulls v back through its own rows. The set itself never travels. Where
every rank can compute the whole loss from u alone, v is known without the second message. Blocks of rows on one rank
are the same law again: the first pass keeps no graph, the second makes that of one block at a time, so that memory
does not grow with the number of blocks (docs/derivations/statistic.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distributed_dd.unroll import Ranks


@dataclass(frozen=True)
class Block:
    """Rows of the set that are differentiated together.

    Attributes:
        rows: which, a slice of what this rank has at hand.
        part: from these rows, of each tensor that is learned, to their part of the statistic, with a graph.
        place: where in u that part lies: an index, as tensors take it.
    """

    rows: slice
    part: Callable[..., Tensor]
    place: Any


def statistic_gradient(
    images: Tensor,
    blocks: Sequence[Block],
    size: tuple[int, ...],
    loss: Callable[[Tensor], Tensor],
    ranks: Ranks,
    *,
    added: Tensor | None = None,
    common: bool,
) -> tuple[Tensor, Tensor]:
    """The loss and this rank's part of its gradient by ``images`` (n, ..); see `statistic_gradients`."""
    value, (gradient,) = statistic_gradients([images], blocks, size, loss, ranks, added=added, common=common)
    return value, gradient


def statistic_gradients(
    learned: Sequence[Tensor],
    blocks: Sequence[Block],
    size: tuple[int, ...],
    loss: Callable[[Tensor], Tensor],
    ranks: Ranks,
    *,
    added: Tensor | None = None,
    common: bool,
) -> tuple[Tensor, list[Tensor]]:
    """The loss and this rank's parts of its gradients by each of ``learned`` (n, ..), which are kept row by row.

    Args:
        blocks: cover the rows that count here; each part of the shape of its place in u.
        size: of the statistic u.
        loss: l_r(u), a scalar with a graph.
        added: what this rank adds to the statistic without a gradient, of shape ``size``.
        common: every rank computes the same loss from u, which is then the whole loss; otherwise the losses of
            all ranks add up, and so do their gradients by u.

    Returns:
        The whole loss; the gradients, zero for rows in no block.
    """
    first = learned[0]
    statistic = torch.zeros(size, dtype=first.dtype, device=first.device) if added is None else added.clone()
    with torch.no_grad():
        for block in blocks:
            statistic[block.place] += block.part(*(tensor[block.rows] for tensor in learned))
    statistic = ranks.sum(statistic).requires_grad_()
    value = loss(statistic)
    (pull,) = torch.autograd.grad(value, statistic)
    value = value.detach()
    if not common:
        value, pull = ranks.sum(value.clone()), ranks.sum(pull)
    gradients = [torch.zeros_like(tensor) for tensor in learned]
    for block in blocks:
        _pull_back(block, learned, pull, gradients)
    return value, gradients


def _pull_back(block: Block, learned: Sequence[Tensor], pull: Tensor, gradients: Sequence[Tensor]) -> None:
    """The rows of one block, into ``gradients``; nothing of the block lives on while the next one is computed."""
    rows = [tensor[block.rows].detach().requires_grad_() for tensor in learned]
    slopes = torch.autograd.grad(block.part(*rows), rows, pull[block.place])
    for gradient, slope in zip(gradients, slopes, strict=True):
        gradient[block.rows] = slope
