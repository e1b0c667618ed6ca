"""Where student steps read the set, and where its gradients are gathered.

A set is one or more tensors with a row for each example: images and label logits, or whatever a student's loss takes.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class RowGradients:
    """Gradients of the tensors of a set (sums over everything that was added), zero at first.

    Attributes:
        tensors: shaped as those of the set; None for whole numbers, which have none.
    """

    def __init__(self, *tensors: Tensor) -> None:
        self.tensors = tuple(torch.zeros_like(t) if t.is_floating_point() else None for t in tensors)

    @property
    def images(self) -> Tensor:
        """Of the first tensor."""
        return self._of(0)

    @property
    def labels(self) -> Tensor:
        """Of the second."""
        return self._of(1)

    def _of(self, number: int) -> Tensor:
        gradient = self.tensors[number]
        if gradient is None:
            raise TypeError(f"tensor {number} of the set holds whole numbers, which have no gradient")
        return gradient

    def add(self, rows: Tensor, *slopes: Tensor | None) -> None:
        """Add to ``rows``, which may repeat: assignment would keep only the last."""
        for gradient, slope in zip(self.tensors, slopes, strict=True):
            if gradient is not None and slope is not None:
                gradient.index_add_(0, rows, slope)


class Rows(Protocol):
    """The rows that student steps train on."""

    gradients: RowGradients

    def read(self, step: int, then: int) -> tuple[Tensor, ...]:
        """The batch of student step ``step``, of each tensor; that of step ``then`` is wanted next."""
        ...

    def add(self, step: int, *slopes: Tensor | None) -> None:
        """Add the gradients of what ``read(step)`` gave."""
        ...


class Whole:
    """The whole set is here.

    Args:
        tensors: of the set, images first. batches: the rows of each student step.
        gradients: what to add to; new, and zero, by default.
    """

    def __init__(
        self, tensors: Sequence[Tensor], batches: Sequence[Tensor], gradients: RowGradients | None = None
    ) -> None:
        self.tensors, self.batches = tuple(tensor.detach() for tensor in tensors), batches
        self.gradients = gradients or RowGradients(*self.tensors)

    def read(self, step: int, then: int) -> tuple[Tensor, ...]:
        """Copies of the rows of student step ``step``."""
        return tuple(tensor[self.batches[step]] for tensor in self.tensors)

    def add(self, step: int, *slopes: Tensor | None) -> None:
        """Add the gradients of the rows of student step ``step``."""
        self.gradients.add(self.batches[step], *slopes)
