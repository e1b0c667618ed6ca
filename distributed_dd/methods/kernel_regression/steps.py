"""The gradient of a kernel regression's loss by the set it is made on, over blocks of pairs and over ranks.

With K_ss the kernel of the set, K_ts that of real images with it, and y the set's targets,

    L = 1/2 mean_tk ( K_ts (K_ss + ridge tr(K_ss)/n I)^-1 y - y_t )^2.

A rank computes rows of K_ss and of K_ts. The first are summed, which makes all of K_ss known to all; each then has the
loss of its own real images, and its gradient by K_ss, by its rows of K_ts and by y, where those by K_ss are summed
again. What is left is a pull-back through its own pairs (docs/derivations/statistic.md: the statistic is K_ss).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distributed_dd.learning.augment import Augmentation, Drawn, part_of
from distributed_dd.learning.chance import generator
from distributed_dd.learning.classes import centred_targets
from distributed_dd.learning.kernels.ridge import predict, ridge_weights
from distributed_dd.methods.kernel_regression.pairs import Pairs
from distributed_dd.outer.by_class import gathered
from distributed_dd.outer.learner import Held
from distributed_dd.outer.method import Found, Seat, Steps
from distributed_dd.outer.world import World
from distributed_dd.unroll import span


@dataclass(frozen=True, kw_only=True)
class RealBatch:
    """Real images that an outer step predicts: by index (t,), and their augmentation."""

    index: Tensor
    augment: Drawn


@dataclass(kw_only=True)
class KernelSteps(Steps):
    """Outer steps of a kernel regression."""

    world: World
    seat: Seat
    pairs: Pairs
    ridge: float
    batch_size: int
    augment: Augmentation

    def __post_init__(self) -> None:
        targets = self.world.real.train.targets
        self.real_of = [(targets == number).nonzero().flatten() for number in range(self.world.num_classes)]

    def draw(self, step: int) -> RealBatch:
        """Equally many images of each class, without replacement; all of a class that has fewer."""
        rng = generator(self.world.seed, "outer step", step, "real")
        each = self.batch_size // self.world.num_classes
        picks = [own[torch.randperm(len(own), generator=rng)[:each]] for own in self.real_of]
        index = torch.cat(picks)
        return RealBatch(index=index, augment=self.augment.draw(rng, len(index)))

    def gradient(self, step: int, held: Held, prepared: Any = None) -> Found:
        """The loss over all real images of the step, and its gradient by images, and by targets that are learned."""
        num_rows, ranks = len(self.seat.classes), self.seat.ranks
        batch = self.draw(step)
        images = gathered(held.images, num_rows, ranks)
        learned = "targets" in held.tensors
        targets = gathered(held.targets, num_rows, ranks) if learned else self._targets(self.seat.classes, images)
        real, real_targets = self._own_part(batch, images)
        by_pairs = self._matrix(images), self._with_real(real, images)
        leaves = [tensor.detach().requires_grad_() for tensor in (*by_pairs, targets)]
        loss, num_right = self._loss(leaves, real_targets, len(batch.index))
        slopes = torch.autograd.grad(loss, leaves)
        gradients = {"images": self._pulled_back(images, real, slopes[0], slopes[1])}
        gradients |= {"targets": slopes[2]} if learned else {}
        parts = {"regression_loss": loss.detach().reshape(1), "regression_accuracy": num_right / len(batch.index)}
        return Found({name: self._held(value, held) for name, value in gradients.items()}, parts)

    def _own_part(self, batch: RealBatch, like: Tensor) -> tuple[Tensor, Tensor]:
        """This rank's real images, augmented, and their targets."""
        layout, train = self.seat.ranks.layout, self.world.real.train
        first, last = span(len(batch.index), layout.num_ranks, layout.rank)
        index = batch.index[first:last]
        real = train.images[index].to(like.device, like.dtype)
        if first < last:
            real = part_of(batch.augment, first, last)(real)
        return real, self._targets(train.targets[index], like)

    def _targets(self, classes: Tensor, like: Tensor) -> Tensor:
        return centred_targets(classes.to(like.device), self.world.num_classes, like.dtype)

    def _own_rows(self, num_rows: int) -> slice:
        layout = self.seat.ranks.layout
        return slice(*span(num_rows, layout.num_ranks, layout.rank))

    def _matrix(self, images: Tensor) -> Tensor:
        """The kernel (n, n) of the set, of which each rank makes some rows."""
        if self.seat.ranks.layout.num_ranks == 1:
            return self.pairs.matrix(images)
        matrix_nn = torch.zeros(len(images), len(images), dtype=images.dtype, device=images.device)
        own = self._own_rows(len(images))
        if own.start < own.stop:
            matrix_nn[own] = self.pairs.matrix(images[own], images)
        return self.seat.ranks.sum(matrix_nn)

    def _with_real(self, real: Tensor, images: Tensor) -> Tensor:
        """The kernel (t, n) of this rank's real images with the set."""
        if not len(real):
            return images.new_zeros(0, len(images))
        return self.pairs.matrix(real, images)

    def _loss(self, leaves: list[Tensor], real_targets: Tensor, num_real: int) -> tuple[Tensor, Tensor]:
        """This rank's part of the loss (), and how many of its real images are predicted right (1,)."""
        matrix_nn, with_real_tn, targets_nK = leaves
        outputs_tK = predict(with_real_tn, ridge_weights(matrix_nn, targets_nK, self.ridge))
        num_right = (outputs_tK.argmax(1) == real_targets.argmax(1)).double().sum().reshape(1)
        return 0.5 * (outputs_tK - real_targets).square().sum() / (num_real * self.world.num_classes), num_right

    def _pulled_back(self, images: Tensor, real: Tensor, by_matrix_nn: Tensor, by_real_tn: Tensor) -> Tensor:
        """This rank's part of the gradient by all images of the set."""
        ranks = self.seat.ranks
        if ranks.layout.num_ranks == 1:
            gradient = self.pairs.by_itself(images, by_matrix_nn)
        else:
            gradient, own = torch.zeros_like(images), self._own_rows(len(images))
            by_matrix_nn = ranks.sum(by_matrix_nn)
            if own.start < own.stop:
                by_rows, by_all = self.pairs.by_both(images[own], images, by_matrix_nn[own])
                gradient += by_all
                gradient[own] += by_rows
        if len(real):
            gradient += self.pairs.by_second(real, images, by_real_tn)
        return gradient

    def _held(self, gradient: Tensor, held: Held) -> Tensor:
        """A part of a gradient by all rows as the engine takes it: of rows that each rank has alone, their sum."""
        num_held = len(held.images)
        if num_held == len(gradient):
            return gradient
        return self.seat.ranks.sum(gradient)[held.first : held.first + num_held]
