"""Where student steps read synthetic images and labels, and where the gradients of both are gathered."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class RowGradients:
    """Gradients of images and labels (sums over everything that was added), zero at first."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = torch.zeros_like(images), torch.zeros_like(labels)

    def add(self, rows: Tensor, images: Tensor, labels: Tensor) -> None:
        """Add to ``rows``, which may repeat: assignment would keep only the last."""
        self.images.index_add_(0, rows, images)
        self.labels.index_add_(0, rows, labels)


class Rows(Protocol):
    """The rows that student steps train on."""

    gradients: RowGradients

    def read(self, step: int, then: int) -> tuple[Tensor, Tensor]:
        """Images and labels of student step ``step``; those of step ``then`` are wanted next."""
        ...

    def add(self, step: int, images: Tensor, labels: Tensor) -> None:
        """Add the gradients of what ``read(step)`` gave."""
        ...


class Whole:
    """All images and labels are here.

    Args:
        images_nCHW, labels_nK: the set. batches: the rows of each student step.
        gradients: what to add to; new, and zero, by default.
    """

    def __init__(
        self,
        images_nCHW: Tensor,
        labels_nK: Tensor,
        batches: Sequence[Tensor],
        gradients: RowGradients | None = None,
    ) -> None:
        self.images_nCHW, self.labels_nK, self.batches = images_nCHW.detach(), labels_nK.detach(), batches
        self.gradients = gradients or RowGradients(self.images_nCHW, self.labels_nK)

    def read(self, step: int, then: int) -> tuple[Tensor, Tensor]:
        """Copies of the rows of student step ``step``."""
        batch = self.batches[step]
        return self.images_nCHW[batch], self.labels_nK[batch]

    def add(self, step: int, images: Tensor, labels: Tensor) -> None:
        """Add the gradients of the rows of student step ``step``."""
        self.gradients.add(self.batches[step], images, labels)
