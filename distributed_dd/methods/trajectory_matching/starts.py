"""The images a synthetic set starts from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from distributed_dd.errors import ConfigError
from distributed_dd.family import Family, setting
from distributed_dd.learning.classes import random_per_class

Predictions = Callable[[int], Tensor]
"""Expert number -> predicted class of every training image (n,)."""


class Start(Protocol):
    """Chooses the starting images; returns them class by class with their indices (-1 for none)."""

    def choose(
        self,
        images: Tensor,
        targets: Tensor,
        per_class: int,
        predictions: Predictions,
        num_experts: int,
        rng: torch.Generator,
    ) -> Tensor: ...


@dataclass(frozen=True)
class CorrectlyPredicted:
    """Real images that an expert classifies correctly (DATM, ICLR 2024).

    Each class is scanned in random order with the first expert; a class that runs out is scanned
    again with the next one, so an image that any expert gets right may be taken.
    """

    epoch: int = setting("expert checkpoint that judges; -1 is the last", -1, at_least=-1_000_000, at_most=1_000_000)

    def choose(
        self,
        images: Tensor,
        targets: Tensor,
        per_class: int,
        predictions: Predictions,
        num_experts: int,
        rng: torch.Generator,
    ) -> Tensor:
        """Indices of the chosen images, class by class."""
        chosen = []
        for number in range(int(targets.max()) + 1):
            own = (targets == number).nonzero().flatten()
            own = own[torch.randperm(len(own), generator=rng)]
            taken: list[int] = []
            for expert in range(num_experts):
                if len(taken) >= per_class:
                    break
                right = own[predictions(expert)[own] == number].tolist()
                taken += [i for i in right if i not in set(taken)]
            if len(taken) < per_class:
                raise ConfigError(
                    "method.start",
                    f"experts classify only {len(taken)} images of class {number} correctly",
                    allowed=f"at least images_per_class = {per_class}",
                    fix="train the experts longer, or choose method.start.kind=real",
                )
            chosen.append(torch.tensor(taken[:per_class]))
        return torch.cat(chosen)


@dataclass(frozen=True)
class Real:
    """Random real images."""

    def choose(
        self,
        images: Tensor,
        targets: Tensor,
        per_class: int,
        predictions: Predictions,
        num_experts: int,
        rng: torch.Generator,
    ) -> Tensor:
        """Indices of the chosen images, class by class."""
        return random_per_class(targets, per_class, rng)


STARTS = Family("start", {"correctly_predicted": CorrectlyPredicted, "real": Real})
