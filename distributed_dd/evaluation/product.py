"""What a distillation makes, as the loop, the run folder and the report see it: a set, a generator."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from distributed_dd.evaluation.coresets import Coreset
from distributed_dd.evaluation.fits import Fit
from distributed_dd.evaluation.scoring import Candidate
from distributed_dd.outer.checkpoint import Saved

Tensors = dict[str, Tensor]
Describe = Callable[[dict[str, Any]], dict[str, Any]]
"""Facts about a distillation -> the manifest of what it made."""


class Product(ABC):
    """One result in its run folder."""

    @abstractmethod
    def starting(self) -> Tensors:
        """What a checkpoint holds before the first outer step."""

    def as_kept(self, start: Tensors) -> Tensors:
        """A start as methods make it -> as `starting`."""
        return start

    @abstractmethod
    def read(self, saved: Saved) -> Tensors:
        """What is scored, shown and kept of a checkpoint."""

    @abstractmethod
    def fits(self, tensors: Tensors, members: Iterable[int]) -> list[Fit]:
        """Fresh networks of these numbers, to be trained on a checkpoint and scored on validation."""

    @abstractmethod
    def picture(self, start: Tensors, tensors: Tensors, title: str) -> bytes:
        """A PNG of a checkpoint for people, beside the start where that tells something."""

    @abstractmethod
    def write(self, best: Tensors, last: Tensors, start: Tensors, facts: dict[str, Any], describe: Describe) -> None:
        """Keep the result: its last file makes it exist."""

    @abstractmethod
    def verify(self) -> None:
        """Open what was written.

        Raises:
            IntegrityError: a file is not what was written (SHA-256 differs).
        """

    def unchanged(self) -> bool:
        """Whether what was written is what the distillation began with, where that can be told."""
        return False

    @abstractmethod
    def rows(self, coresets: Sequence[Coreset]) -> list[Candidate]:
        """The rows of the report before they are scored, those of chosen real images among them."""

    def ready_rows(self) -> list[dict[str, Any]]:
        """Rows that need no fresh networks, scored."""
        return []

    def finished(self, row: dict[str, Any]) -> dict[str, Any]:
        """A scored row with what this result says about it."""
        return row

    def more_for_the_report(self) -> dict[str, Any]:
        """What the report says beside what all say."""
        return {}

    def bytes_per_class(self) -> dict[str, int] | None:
        """What it takes to keep, a class on average: ``images`` and ``labels``; None where that is not known."""
        return None

    @property
    @abstractmethod
    def folders(self) -> Sequence[Path]:
        """Folders that hold it; the first has the picture that people look at."""
