"""How alike a network finds real and generated images: globally in its logits, locally in a middle layer.

"Generative dataset distillation: balancing global structure and local details" (arXiv 2404.17732), on top of
DiM (arXiv 2303.04707). Rows at hand may be a part of a batch of ``total``.
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.nn.functional import log_softmax

LogitForm = Literal["log_softmax", "raw"]
FeatureForm = Literal["l1_sum", "mse_mean", "per_sample"]
Sum = Callable[[Tensor], Tensor]


def global_loss(fake_BK: Tensor, real_BK: Tensor, form: LogitForm, total: int) -> Tensor:
    """The squared difference of logits, or of their log-softmax, averaged over batch and classes.

    Row by row: a generated image is compared with the real one of the same class at its place.
    """
    if form == "log_softmax":
        fake_BK, real_BK = log_softmax(fake_BK, 1), log_softmax(real_BK, 1)
    return (fake_BK - real_BK).square().sum() / (total * fake_BK.shape[1])


def local_loss(fake_BF: Tensor, real_BF: Tensor, form: FeatureForm, total: int, summed: Sum, num_ranks: int) -> Tensor:
    """The difference of features.

    ``l1_sum``: sum of | mean_B fake - mean_B real | over all features; ``mse_mean``: mean of the squares of
    the same differences; ``per_sample``: mean of squared differences image by image.

    Args:
        summed: the differentiable sum over the ranks that share the batch; num_ranks: how many they are.
            What they return adds up to the loss.
    """
    difference = (fake_BF - real_BF).flatten(1)
    if form == "per_sample":
        return difference.square().sum() / (total * difference.shape[1])
    # The mean is over the whole batch: its absolute value is not the sum of those of parts.
    mean_F = summed(difference.sum(0)) / total
    distance = mean_F.abs().sum() if form == "l1_sum" else mean_F.square().mean()
    return distance / num_ranks
