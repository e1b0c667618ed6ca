"""Batch norm without running statistics, over batches that may be divided over ranks."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-5
Sum = Callable[[Tensor], Tensor]


class BatchNorm(nn.Module):
    """Normalises each channel by the statistics of its batch, or by standing ones once they were taken.

    Running averages would be a state beside the parameters, and lag behind them. Here the layer is a function
    of its parameters and the batch; `take_standing_statistics` fixes the statistics when a network is finished
    (Brock et al., ICLR 2019, appendix).

    Attributes:
        summed: where a batch is divided over ranks, the differentiable sum over them; the statistics are then
            those of the whole batch.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.standing, self.summed = False, None  # type: bool, Sum | None
        self.seen: list[tuple[Tensor, Tensor]] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) or (B, C, H, W), the same shape."""
        if self.standing:
            return F.batch_norm(x, self.mean, self.variance, self.weight, self.bias, False, 0.0, EPS)
        if self.seen is not None:
            axes = _all_but_channels(x)
            exact = _at_least_float(x)
            self.seen.append((exact.mean(axes), exact.var(axes, unbiased=False)))
        if self.summed is None:
            return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, EPS)
        return self._over_ranks(_at_least_float(x), self.summed).to(x.dtype)

    def _over_ranks(self, x: Tensor, summed: Sum) -> Tensor:
        axes, shape = _all_but_channels(x), (1, -1, *[1] * (x.ndim - 2))
        # The count goes with the sum: messages this small cost their latency.
        sums = summed(torch.cat([x.sum(axes), x.new_full((1,), x.numel() // x.shape[1])]))
        count = sums[-1].detach()
        centred = x - (sums[:-1] / count).view(shape)
        variance = summed(centred.square().sum(axes)) / count
        normalised = centred * (variance + EPS).rsqrt().view(shape)
        return normalised * self.weight.view(shape) + self.bias.view(shape)


def _at_least_float(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _all_but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.ndim)]


def batch_norms(network: nn.Module) -> list[BatchNorm]:
    """The batch norms of a network, in order."""
    return [module for module in network.modules() if isinstance(module, BatchNorm)]


@torch.no_grad()
def take_standing_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Fix the statistics of every batch norm as the mean over what it saw in ``batches``."""
    layers = batch_norms(network)
    for layer in layers:
        layer.standing, layer.seen = False, []
    for batch in batches:
        network(batch)
    for layer in layers:
        means, variances = zip(*(layer.seen or ()), strict=True)
        layer.mean.copy_(torch.stack(means).mean(0))
        layer.variance.copy_(torch.stack(variances).mean(0))
        layer.standing, layer.seen = True, None


class SummedOverRanks(torch.autograd.Function):
    """The sum over ranks of a tensor, through which gradients flow.

    What ranks back-propagate must add up to the loss: a term that every rank has whole counts once for each.
    """

    @staticmethod
    def forward(ctx: Any, part: Tensor, total: Sum) -> Tensor:
        ctx.total = total
        return total(part.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.total(gradient.clone()), None
