"""One supervised loop: experts and evaluation students are trained by the same code."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from distributed_dd.family import choice, setting
from distributed_dd.learning.augment import AUGMENTATIONS, Augmentation, Siamese
from distributed_dd.learning.batches import endless_batch
from distributed_dd.learning.chance import generator
from distributed_dd.learning.flat import FlatNetwork, flatten, soft_cross_entropy, unflatten
from distributed_dd.learning.optimizers import OPTIMIZERS, SGD, Optimizer
from distributed_dd.learning.schedules import Drop, Moment, Schedule

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
Chosen = Callable[[int], Tensor]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained on labelled images."""

    num_epochs: int = setting("passes over the images", 100, at_least=1, at_most=1_000_000)
    batch_size: int = setting("images per step; the last, smaller batch is kept", 256, at_least=1)
    drop: float = setting("learning rate factor after epoch num_epochs // 2 + 1 (1 for none)", 1.0, at_most=1)
    optimizer: Optimizer = choice(OPTIMIZERS, "update rule", SGD())
    augment: Augmentation = choice(AUGMENTATIONS, "augmentation of every batch", Siamese())
    precision: Literal["float32", "bf16"] = setting("arithmetic of the network", "float32")
    compile: bool = setting("compile the network; worth it from a few hundred steps on", False)

    def bare(self, **changes: Any) -> "Recipe":
        """This recipe with changes, without what a subclass adds to it."""
        return Recipe(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Recipe)} | changes)

    def fitted_to(self, num_images: int) -> "Recipe":
        """This recipe for a set of so many images, where it counts otherwise than in epochs."""
        return self

    def at_most(self, num_epochs: int) -> "Recipe":
        """This recipe, with no more passes than that over the set that it is fitted to."""
        return dataclasses.replace(self, num_epochs=min(self.num_epochs, num_epochs))

    def of_real_images(self, num_epochs: int) -> "Recipe":
        """This recipe for all real images."""
        return dataclasses.replace(self, num_epochs=num_epochs)

    def of_targets(self) -> "Recipe":
        """This recipe for labels that are targets of a regression; only one with a squared error has it."""
        raise TypeError("cross-entropy takes no targets of a regression")

    @property
    def schedule(self) -> Schedule:
        """How the learning rate changes."""
        return Drop(self.drop)

    def order(self, num_images: int, rng: torch.Generator) -> Tensor:
        """The order in which an epoch sees its images, (n,)."""
        return torch.randperm(num_images, generator=rng)

    def mixed(self, x_BCHW: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """A batch, after augmentation, as it is trained on."""
        return x_BCHW, y

    def criterion(self, soft: bool) -> Callable[[Tensor, Tensor], Tensor]:
        """The loss of logits (B, K) and labels: class numbers (B,), or logits (B, K) where they are soft."""
        return soft_cross_entropy if soft else cross_entropy

    @property
    def takes_targets(self) -> bool:
        """Whether labels may be targets of a regression."""
        return False

    @property
    def loss_key(self) -> Any:
        """What tells its `criterion` from those of other recipes."""
        return "cross_entropy"

    @property
    def average_decay(self) -> float:
        """Decay of the mean of parameters over steps that is the result; 0: the last parameters are."""
        return 0.0


class Training:
    """A network in training, epoch by epoch. Parameters and momentum are two flat vectors.

    What an epoch does depends on ``key``, its number and these two vectors alone: a training that
    was saved after an epoch and goes on elsewhere ends with the same bits.

    Args:
        labels: (n,) class numbers for hard cross-entropy, or (n, K) logits for soft.
        key: words for `generator`; order and augmentation of epoch e depend on (key, e).
        learning_rate: in place of the optimiser's own, such as the distilled one.
        chosen: indices of the images that an epoch trains on; all of them by default.
        renewed: the images of an epoch, where each has its own; ``images_nCHW`` are those of the first.
        teacher: gives the label logits (B, K) of a batch as it is trained on, in place of the images' own.
    """

    def __init__(
        self,
        network: nn.Module,
        images_nCHW: Tensor,
        labels: Tensor,
        recipe: Recipe,
        key: tuple,
        learning_rate: float | None = None,
        chosen: Chosen | None = None,
        renewed: Chosen | None = None,
        teacher: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.network, self.images_nCHW, self.labels = network.train(), images_nCHW, labels
        self.recipe, self.key, self.chosen, self.renewed = recipe, key, chosen, renewed
        self.rate = recipe.optimizer.learning_rate if learning_rate is None else learning_rate
        self.theta_P = flatten(network)
        self.velocity_P = recipe.optimizer.start(self.theta_P)
        self.epoch, self.teacher = 0, teacher
        self._mean_P = self.theta_P if recipe.average_decay else None
        self._loss = _loss(FlatNetwork(network, recipe.precision), recipe)
        self._full_batch_loss = _compiled_loss(network, recipe) if recipe.compile else self._loss

    def run_epoch(self, stops: Sequence[float] = (1.0,)) -> Iterator[Tensor]:
        """Train for one epoch; yields theta_P at each of ``stops``, ascending fractions of the epoch.

        A stop is after the whole number of batches that is nearest to it. The vector is not written
        to afterwards: it may be kept without a copy.
        """
        if self.renewed is not None:
            self.images_nCHW = self.renewed(self.epoch)
        rng = generator(self.key[0], *self.key[1:], "epoch", self.epoch)
        batches = self._order(rng).to(self.images_nCHW.device).split(self.recipe.batch_size)
        schedule = self.recipe.schedule
        waiting = [(round(stop * len(batches)), stop) for stop in stops]
        for number, batch in enumerate(batches, 1):
            moment = Moment(
                epoch=self.epoch, batch=number - 1, num_batches=len(batches), num_epochs=self.recipe.num_epochs
            )
            if schedule.forgets(moment):
                self.velocity_P = self.recipe.optimizer.start(self.theta_P)
            optimizer = self._optimizer(schedule.factor(moment))
            augment = self.recipe.augment.draw(rng, len(batch))
            images_BCHW, labels = self.recipe.mixed(augment(self.images_nCHW[batch]), self.labels[batch], rng)
            if self.teacher is not None:
                labels = self.teacher(images_BCHW)
            gradient = self._gradient(images_BCHW, labels, full=len(batch) == len(batches[0]))
            self.theta_P, self.velocity_P = optimizer.update(self.theta_P, self.velocity_P, gradient)
            if self._mean_P is not None:
                self._mean_P = self.theta_P.lerp(self._mean_P, self.recipe.average_decay)
            if number == len(batches):
                self.epoch += 1
                unflatten(self.theta_P if self._mean_P is None else self._mean_P, self.network)
            while waiting and waiting[0][0] <= number:
                waiting.pop(0)
                yield self.theta_P

    def run_steps(self, first: int, last: int) -> Iterator[Tensor]:
        """Steps first .. last (exclusive) on batches without end; yields theta_P after each.

        What a step does depends on ``key``, its number, theta_P and the momentum alone.
        """
        optimizer = self._optimizer(1.0)
        for step in range(first, last):
            order = (*self.key[1:], "order")
            batch = endless_batch(len(self.images_nCHW), self.recipe.batch_size, step, self.key[0], *order).to(
                self.images_nCHW.device
            )
            rng = generator(self.key[0], *self.key[1:], "step", step)
            augment = self.recipe.augment.draw(rng, len(batch))
            gradient = self._gradient(augment(self.images_nCHW[batch]), self.labels[batch], full=True)
            self.theta_P, self.velocity_P = optimizer.update(self.theta_P, self.velocity_P, gradient)
            yield self.theta_P

    def run_to_end(self) -> None:
        """Train for all epochs that are left; the network holds the result."""
        while self.epoch < self.recipe.num_epochs:
            for _ in self.run_epoch():
                pass

    def load(self, theta_P: Tensor, velocity_P: Tensor, epoch: int) -> None:
        """Go on from what a training of the same recipe and key had after ``epoch`` epochs."""
        where = self.theta_P.device
        self.theta_P, self.velocity_P, self.epoch = theta_P.to(where), velocity_P.to(where), epoch
        unflatten(self.theta_P, self.network)

    def _optimizer(self, factor: float) -> Optimizer:
        """The update rule with its rate times a factor."""
        rate = self.rate if factor == 1.0 else self.rate * factor
        return dataclasses.replace(self.recipe.optimizer, learning_rate=rate)  # type: ignore[type-var]

    def _order(self, rng: torch.Generator) -> Tensor:
        if self.chosen is None:
            return self.recipe.order(len(self.images_nCHW), rng)
        indices = self.chosen(self.epoch)
        return indices[torch.randperm(len(indices), generator=rng)]

    def _gradient(self, x_BCHW: Tensor, y: Tensor, full: bool) -> Callable[[Tensor], Tensor]:
        # A compiled function is for one shape; the odd batch at the end of an epoch goes without.
        loss = self._full_batch_loss if full else self._loss
        if self.recipe.compile and full:
            # Augmentations leave different strides behind, and each would be compiled anew.
            x_BCHW = x_BCHW.clone(memory_format=torch.channels_last)

        def gradient(theta_P: Tensor) -> Tensor:
            leaf = theta_P.detach().requires_grad_()
            (gradient_P,) = torch.autograd.grad(loss(leaf, x_BCHW, y), leaf)
            # A CUDA graph writes its next result over this one.
            return gradient_P.clone() if self.recipe.compile and gradient_P.is_cuda else gradient_P

        return gradient


def _loss(network: FlatNetwork, recipe: Recipe) -> Loss:
    hard, soft = recipe.criterion(soft=False), recipe.criterion(soft=True)

    def loss(theta_P: Tensor, x_BCHW: Tensor, y: Tensor) -> Tensor:
        return (soft if y.ndim == 2 else hard)(network.logits(theta_P, x_BCHW), y)

    return loss


_COMPILED: dict[tuple, Loss] = {}


def _compiled_loss(network: nn.Module, recipe: Recipe) -> Loss:
    """The compiled loss of ``network``, shared in this process by all networks of the same layers.

    A network with buffers, such as running statistics, keeps its own.
    """
    options: dict[str, Any] = {"dynamic": False}
    if next(network.parameters()).is_cuda:
        options["mode"] = "reduce-overhead"  # CUDA graphs: at these sizes launches cost as much as work
    if any(True for _ in network.buffers()):
        return torch.compile(_loss(FlatNetwork(network, recipe.precision, channels_last=True), recipe), **options)
    where = next(network.parameters()).device
    key = (type(network), str(network), recipe.precision, recipe.loss_key, where)
    if key not in _COMPILED:
        own = FlatNetwork(copy.deepcopy(network), recipe.precision, channels_last=True)
        _COMPILED[key] = torch.compile(_loss(own, recipe), **options)
    return _COMPILED[key]


@torch.no_grad()
def predict(network: nn.Module, images_nCHW: Tensor, batch_size: int = 1024) -> Tensor:
    """Logits (n, K) of ``network`` in evaluation mode."""
    network.eval()
    return torch.cat([network(batch) for batch in images_nCHW.split(batch_size)])


def accuracy(network: nn.Module, images_nCHW: Tensor, targets_n: Tensor) -> float:
    """Share of images whose largest logit is at their class, in [0, 1]."""
    return share_right(predict(network, images_nCHW), targets_n)


def share_right(logits_nK: Tensor, targets_n: Tensor) -> float:
    """Share of rows whose largest logit is at their class, in [0, 1]."""
    return (logits_nK.argmax(1) == targets_n).double().mean().item()
