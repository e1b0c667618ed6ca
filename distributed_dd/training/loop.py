"""One supervised loop: experts and evaluation students are trained by the same code."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from distributed_dd.distillation.augment import AUGMENTATIONS, Augmentation, Siamese
from distributed_dd.distillation.chance import generator
from distributed_dd.distillation.student import soft_cross_entropy
from distributed_dd.family import choice, require, setting
from distributed_dd.training.optimizers import OPTIMIZERS, SGD, Optimizer, Step


@dataclass(frozen=True)
class Recipe:
    """How a network is trained on labelled images."""

    num_epochs: int = setting("passes over the images", 100)
    batch_size: int = setting("images per step; the last, smaller batch is kept", 256)
    drop: float = setting("learning rate factor after epoch num_epochs // 2 + 1 (1 for none)", 1.0)
    optimizer: Optimizer = choice(OPTIMIZERS, "update rule", SGD())
    augment: Augmentation = choice(AUGMENTATIONS, "augmentation of every batch", Siamese())

    def __post_init__(self) -> None:
        require(self.num_epochs >= 1, "num_epochs", f"got {self.num_epochs}", "1 or more")
        require(self.batch_size >= 1, "batch_size", f"got {self.batch_size}", "1 or more")


def train(
    network: nn.Module,
    images_nCHW: Tensor,
    labels: Tensor,
    recipe: Recipe,
    key: tuple,
    learning_rate: float | None = None,
) -> Iterator[int]:
    """Train ``network`` in place; yields the number of finished epochs after each.

    Args:
        labels: (n,) class numbers for hard cross-entropy, or (n, K) logits for soft.
        key: words for `generator`; order and augmentation of epoch e depend on (key, e) alone.
        learning_rate: in place of the optimiser's own, such as the distilled one.
    """
    network.train()
    rate = recipe.optimizer.learning_rate if learning_rate is None else learning_rate
    step = _start(network, recipe, rate)
    loss = soft_cross_entropy if labels.ndim == 2 else cross_entropy
    for epoch in range(recipe.num_epochs):
        if recipe.drop != 1.0 and epoch == recipe.num_epochs // 2 + 1:
            # The published protocol builds a new optimiser here, which also forgets momentum.
            step = _start(network, recipe, rate * recipe.drop)
        rng = generator(key[0], *key[1:], "epoch", epoch)
        order = torch.randperm(len(images_nCHW), generator=rng)
        for batch in order.split(recipe.batch_size):
            augment = recipe.augment.draw(rng, len(batch))
            batch = batch.to(images_nCHW.device)
            x, y = augment(images_nCHW[batch]), labels[batch]
            step(lambda x=x, y=y: loss(network(x), y))  # type: ignore[misc]
        yield epoch + 1


def _start(network: nn.Module, recipe: Recipe, rate: float) -> Step:
    optimizer = dataclasses.replace(recipe.optimizer, learning_rate=rate)  # type: ignore[type-var]
    return optimizer.start(network.parameters())


@torch.no_grad()
def predict(network: nn.Module, images_nCHW: Tensor, batch_size: int = 1024) -> Tensor:
    """Logits (n, K) of ``network`` in evaluation mode."""
    network.eval()
    return torch.cat([network(batch) for batch in images_nCHW.split(batch_size)])


def accuracy(network: nn.Module, images_nCHW: Tensor, targets_n: Tensor) -> float:
    """Share of images whose largest logit is at their class, in [0, 1]."""
    return (predict(network, images_nCHW).argmax(1) == targets_n).double().mean().item()
