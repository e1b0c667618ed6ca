"""The loss of a student on real images, as the end of its training."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from distributed_dd.learning.flat import Student
from distributed_dd.unroll import EndLoss


@dataclass(frozen=True, kw_only=True)
class RealLoss(EndLoss):
    """Cross-entropy on a batch of real images, of which each rank of a group has some.

    Attributes:
        images (b, C, H, W), classes (b,): those of this rank.
        share: of the batch that they are; None: all of it is here.
        rows_at_once: images that pass the network together: memory, not results.
    """

    student: Student
    images: Tensor
    classes: Tensor
    share: float | None
    rows_at_once: int

    @property
    def parted(self) -> bool:  # type: ignore[override]
        """Whether other ranks have the rest."""
        return self.share is not None

    def loss(self, theta_P: Tensor) -> Tensor:
        """This rank's part of the mean over the batch."""
        return self._share * cross_entropy(self.student.logits(theta_P, self.images), self.classes)

    def slope(self, theta_P: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and gradient (P,), some rows at a time: their graphs are never there together."""
        loss, slope_P = torch.zeros_like(theta_P[0]), torch.zeros_like(theta_P)
        for images, classes in zip(
            self.images.split(self.rows_at_once), self.classes.split(self.rows_at_once), strict=True
        ):
            with torch.enable_grad():
                leaf = theta_P.detach().requires_grad_()
                part = cross_entropy(self.student.logits(leaf, images), classes)
                (gradient,) = torch.autograd.grad(part, leaf)
            share = self._share * len(images) / len(self.images)
            loss += share * part.detach()
            slope_P += share * gradient
        return loss, slope_P

    @property
    def _share(self) -> float:
        return 1.0 if self.share is None else self.share
