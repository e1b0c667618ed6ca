"""What the stages ask of the outside world. Backends answer; tests use the plain local twins."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from distributed_dd.distillation.unroll import MatchingGradient
from distributed_dd.stages.checkpoint import Shard


class Cluster(Protocol):
    """Runs independent work somewhere."""

    def map(
        self, function: Callable[[Any, Any], Any], tasks: Sequence[Any], shared: Any
    ) -> Iterator[tuple[int, Any]]:
        """``function(task, shared)`` for every task; yields (index, result) as they finish."""
        ...


@dataclass(frozen=True)
class Held:
    """The rows of the set that a rank has at hand, from row ``first`` on, and the student learning rate."""

    first: int
    images: Tensor
    labels: Tensor
    learning_rate: Tensor


class Engine(Protocol):
    """Holds the synthetic set, or this rank's part of it, and updates it with ready-made gradients."""

    num_rows: int

    def read(self) -> Held:
        """The set as it is now: all rows, or those that this rank keeps where the set is sharded."""
        ...

    def renew_labels(self, labels: Tensor) -> None:
        """Replace the labels of the rows that `read` gives; they must not be learned ones."""
        ...

    def step(self, gradient: MatchingGradient) -> Tensor:
        """One update. ``gradient`` holds parts, of the rows that `read` gave, whose sum over ranks counts.

        Returns this rank's part of the squared norm of the image gradient.
        """
        ...

    def keep_rate(self, floor: float) -> bool:
        """Lift the student learning rate to ``floor`` if it is below; whether it was."""
        ...

    def rate(self) -> float:
        """The student learning rate as it is now."""
        ...

    def kept(self) -> dict[str, Tensor]:
        """Images, labels and classes of the rows that this rank keeps, and the learning rate; copies."""
        ...

    def momenta(self) -> dict[str, Tensor]:
        """Momenta of what is learned (``images``, ..), of the rows that this rank keeps; copies."""
        ...


class Workers(Cluster, Protocol):
    """Those who make the outer steps: this process, or a gang of ranks."""

    def start(self) -> None:
        """Begin from the newest checkpoint. Also after `WorkersLost`."""
        ...

    def outer_steps(self, first: int, last: int) -> Iterator[dict[str, float]]:
        """Make outer steps first .. last (exclusive); yields what each measured.

        Raises:
            WorkersLost: one of them died; the others were stopped.
        """
        ...

    def save(self, step: int) -> list[Shard]:
        """Write what is needed to go on after ``step`` outer steps."""
        ...

    def peak_memory_bytes(self) -> int:
        """The most memory that one of them held."""
        ...

    def stop(self) -> None:
        """Let them go."""
        ...


class WorkersLost(Exception):
    """A worker died, through no fault of the program."""


class Tracker(Protocol):
    """Shows a run to people while it goes on. A tracker that fails must not stop the run."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None: ...

    def picture(self, name: str, step: int, png: Path) -> None: ...

    def artefact(self, path: Path) -> None: ...

    def summary(self, values: Mapping[str, float]) -> None: ...

    def end(self, status: str) -> None:
        """``status`` is FINISHED, FAILED or KILLED."""
        ...


class Bar(Protocol):
    """Counts what is done."""

    def advance(self, note: str = "") -> None:
        """One more is done."""
        ...

    def reach(self, done: int, note: str = "") -> None:
        """So many are done."""
        ...


class Progress(Protocol):
    """Tells a person how far things are."""

    def bar(self, what: str, total: int, done: int = 0) -> AbstractContextManager[Bar]: ...

    def say(self, text: str) -> None: ...
