"""What holds the learned tensors and updates them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Held:
    """Tensors that a rank has at hand, by name; those kept row by row from row ``first`` of the set on."""

    first: int
    tensors: Mapping[str, Tensor]

    @property
    def images(self) -> Tensor:
        """The images (rows, C, H, W)."""
        return self.tensors["images"]

    @property
    def labels(self) -> Tensor:
        """The labels (rows, K)."""
        return self.tensors["labels"]

    @property
    def targets(self) -> Tensor:
        """What a regression learns in place of labels (rows, K); KeyError where the set has none."""
        return self.tensors["targets"]

    @property
    def learning_rate(self) -> Tensor:
        """The student learning rate (); KeyError where the set has none."""
        return self.tensors["learning_rate"]


class Learner(Protocol):
    """Holds the learned tensors, or this rank's part of them, and updates them with ready-made gradients.

    Every rank must ask for the same things in the same order.
    """

    num_rows: int
    """Rows of the whole set; 0 where nothing is kept row by row."""

    def read(self) -> Held:
        """What is learned as it is now, and row tensors that are not learned, but for the classes.

        Rows are all of the set, or those that this rank keeps where the set is sharded. Good until the
        next `step`; what is not copied changes with it.
        """
        ...

    def step(self, gradients: Mapping[str, Tensor], rate_factor: float = 1.0) -> Tensor:
        """One update.

        Args:
            gradients: of every learned tensor, and of nothing else; shaped as `read` gave it. They are
                parts, whose sum over ranks counts, and are used up.
            rate_factor: multiplies the learning rates of this update.

        Returns:
            This rank's part of the squared norm () of the first rule's gradient, in float64, before a rule clips it.

        Raises:
            ValueError: a gradient is missing, or is of something that is not learned.
        """
        ...

    def replace(self, name: str, rows: Tensor) -> None:
        """Put ``rows`` in the place of those that `read` gives.

        Raises:
            TypeError: rows of this name are learned.
        """
        ...

    def lift(self, name: str, floor: float) -> bool:
        """Lift a learned number to ``floor`` if it is below; whether it was."""
        ...

    def value(self, name: str) -> float:
        """A learned number as it is now."""
        ...

    def kept(self) -> dict[str, Tensor]:
        """Rows that this rank keeps, classes among them, and flat tensors whole; copies."""
        ...

    def slots(self) -> dict[str, Tensor]:
        """What update rules keep, by the keys of checkpoints: of the rows that this rank keeps, and of flat
        tensors whole; and single numbers (). Copies."""
        ...

    def close(self) -> None:
        """Let go of what outlives the learner in this process."""
        ...


def require_gradients(gradients: Iterable[str], learned: Iterable[str]) -> None:
    """Refuse gradients that do not belong to exactly what is learned.

    Raises:
        ValueError: the two lists of names differ; the message has both.
    """
    received, wanted = sorted(gradients), sorted(learned)
    if received != wanted:
        raise ValueError(f"gradients of {', '.join(received)}; learned are {', '.join(wanted)}")
