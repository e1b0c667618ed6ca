"""Losses of the auxiliary-classifier Wasserstein GAN with gradient penalty.

Odena et al. (ICML 2017), Gulrajani et al. (NeurIPS 2017), put together as in DiM (arXiv 2303.04707):

    D: mean D(G(z)) - mean D(x) + CE(cls(G(z)), y') + CE(cls(x), y) + gp mean(|| grad D(x^) || - 1)^2
    G: - mean D(G(z)) + CE(cls(G(z)), y)

All are sums over the rows at hand, divided by the ``total`` of the whole batch: parts of a batch add up.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from distributed_dd.learning.networks.discriminator import source_and_class

Critic = Callable[[Tensor], Tensor]


def generator_losses(out_BH: Tensor, classes_B: Tensor, total: int) -> dict[str, Tensor]:
    """What a generator wants of the discriminator's answer to its images."""
    source, logits = source_and_class(out_BH)
    return {
        "adversarial": -source.sum() / total,
        "classification": cross_entropy(logits, classes_B, reduction="sum") / total,
    }


def discriminator_losses(
    critic: Critic,
    real_BCHW: Tensor,
    classes_B: Tensor,
    fake_BCHW: Tensor,
    fake_classes_B: Tensor,
    mix_B: Tensor,
    total: int,
) -> dict[str, Tensor]:
    """What a discriminator wants: the (negative) distance of both sources, the classes, the unit slope.

    Args:
        mix_B: share of the real image in each of the points at which the slope is taken, in [0, 1).
    """
    source, logits = source_and_class(critic(torch.cat([fake_BCHW, real_BCHW])))
    fake_source, real_source = source.split([len(fake_BCHW), len(real_BCHW)])
    targets = torch.cat([fake_classes_B, classes_B])
    return {
        "distance": (real_source.sum() - fake_source.sum()) / total,
        "classification": cross_entropy(logits, targets, reduction="sum") / total,
        "penalty": _penalty(critic, real_BCHW, fake_BCHW, mix_B).sum() / total,
    }


def _penalty(critic: Critic, real_BCHW: Tensor, fake_BCHW: Tensor, mix_B: Tensor) -> Tensor:
    """(|| grad D || - 1)^2 at points between real and generated images, (B,)."""
    share = mix_B.to(real_BCHW).view(-1, 1, 1, 1)
    between = share * real_BCHW + (1 - share) * fake_BCHW

    def source(images_BCHW: Tensor) -> Tensor:
        return source_and_class(critic(images_BCHW))[0].sum()

    # No layer looks at more than one image, so the gradient of the sum is that of each.
    slope = torch.func.grad(source)(between)
    return (slope.flatten(1).norm(dim=1) - 1).square()
