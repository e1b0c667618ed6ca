"""Classes as labels, and images picked class by class."""

import torch
from torch import Tensor
from torch.nn.functional import one_hot

HARD_LOGIT = 100.0


def hard_logits(targets_n: Tensor, num_classes: int) -> Tensor:
    """Logits whose softmax is one-hot to float32 precision: exp(-100) is 4e-44."""
    return one_hot(targets_n, num_classes).float() * HARD_LOGIT


def random_per_class(targets: Tensor, per_class: int, rng: torch.Generator) -> Tensor:
    """Indices of ``per_class`` random images of every class, class by class."""
    chosen = []
    for number in range(int(targets.max()) + 1):
        own = (targets == number).nonzero().flatten()
        chosen.append(own[torch.randperm(len(own), generator=rng)[:per_class]])
    return torch.cat(chosen)


def centred_targets(targets_n: Tensor, num_classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """What a regression predicts for hard labels (n, K): one-hot less 1 / K."""
    return one_hot(targets_n, num_classes).to(dtype) - 1 / num_classes
