"""Which images an expert sees in which epoch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from distributed_dd.family import Family, require, setting


class Curriculum(Protocol):
    """Chooses the images of an epoch."""

    @property
    def full_epoch(self) -> int:
        """The first epoch by which every image has been seen."""
        ...

    @property
    def num_scorers(self) -> int:
        """Networks that have to be trained to rank the images by difficulty; 0 where no rank is needed."""
        ...

    @property
    def scorer_epochs(self) -> int:
        """Epochs that each of them is trained for."""
        ...

    def chosen(self, epoch: int, easy_to_hard_n: Tensor) -> Tensor:
        """Indices of the images for this epoch; the epoch count starts at 0."""
        ...


@dataclass(frozen=True)
class Everything:
    """All images in every epoch."""

    full_epoch = 0
    num_scorers = 0
    scorer_epochs = 0

    def chosen(self, epoch: int, easy_to_hard_n: Tensor) -> Tensor:
        """All of them."""
        return easy_to_hard_n


@dataclass(frozen=True, kw_only=True)
class EasyToHard:
    """PAD's curriculum (arXiv 2408.03360): the hard images join step by step, later the easiest leave.

    Difficulty is EL2N (Paul et al., NeurIPS 2021): the length of the error vector, softmax minus one-hot,
    averaged over networks that were trained for a few epochs.
    """

    initial_fraction: float = setting("share of the images, the easiest, that epoch 0 sees", 0.75, above=0, at_most=1)
    full_epoch: int = setting("epoch from which all images are seen; the paper: 20, for large sets 40", 20, at_least=1)
    removal_epochs: tuple[int, ...] = setting("epochs from which the easiest images leave", (40, 60))
    removal_fractions: tuple[float, ...] = setting(
        "share of all images gone from then on", (0.1, 0.2), at_least=0, below=1
    )
    num_scorers: int = setting("networks that rank the images", 10, at_least=1, at_most=1_000_000)
    scorer_epochs: int = setting("epochs that each of them is trained for", 10, at_least=1)

    def __post_init__(self) -> None:
        epochs, fractions = list(self.removal_epochs), list(self.removal_fractions)
        require(
            len(epochs) == len(fractions),
            "removal_fractions",
            f"{len(fractions)} for {len(epochs)} removal_epochs",
            "one for each",
        )
        ordered = epochs == sorted(set(epochs)) and all(epoch >= self.full_epoch for epoch in epochs)
        allowed = f"ascending, from full_epoch ({self.full_epoch}) on"
        require(ordered, "removal_epochs", f"got {epochs}", allowed)
        fits = fractions == sorted(fractions) and all(0 <= f < 1 for f in fractions)
        require(fits, "removal_fractions", f"got {fractions}", "ascending, 0 or more, below 1")

    def chosen(self, epoch: int, easy_to_hard_n: Tensor) -> Tensor:
        """The easiest up to a bound that grows linearly, without those that have left."""
        total = len(easy_to_hard_n)
        grown = min(1.0, epoch / self.full_epoch)
        upper = round(total * (self.initial_fraction + (1 - self.initial_fraction) * grown))
        left = [f for e, f in zip(self.removal_epochs, self.removal_fractions, strict=True) if epoch >= e]
        return easy_to_hard_n[round(total * max(left, default=0.0)) : max(upper, 1)]


def el2n(logits_nK: Tensor, targets_n: Tensor) -> Tensor:
    """|| softmax(logits) - one-hot ||_2 of every image, (n,)."""
    error_nK = logits_nK.double().softmax(1)
    error_nK[torch.arange(len(targets_n)), targets_n] -= 1
    return error_nK.norm(dim=1)


def easy_to_hard(scores_n: Sequence[Tensor]) -> Tensor:
    """Indices by mean score, easiest first; equal scores in the images' order."""
    return torch.stack(list(scores_n)).mean(0).argsort(stable=True)


CURRICULA = Family("curriculum", {"everything": Everything, "easy_to_hard": EasyToHard})
