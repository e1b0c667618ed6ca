"""Interfaces to the outside world that stages use. Backends implement them; tests use the plain local ones."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from distributed_dd.learning.update_rules import UpdateRule
from distributed_dd.outer.checkpoint import Checkpoints, Packed, Saved, Shard
from distributed_dd.outer.learner import Learner
from distributed_dd.outer.spares import Spared
from distributed_dd.unroll import Ranks, Stored

Link = Callable[[Any, Any, Any], tuple[Any, Any]]


class Cluster(Protocol):
    """Runs independent work somewhere."""

    def map(self, function: Callable[[Any, Any], Any], tasks: Sequence[Any], shared: Any) -> Iterator[tuple[int, Any]]:
        """``function(task, shared)`` for every task; yields (index, result) as they finish."""
        ...

    def chain(self, function: Link, tasks: Iterable[Any], shared: Any, ahead: int) -> Iterator[Any]:
        """Work of which each task begins where the one before ended, made before it is asked for.

        ``function(task, state, shared)`` returns a result and the next state. The state is None at first,
        and for a task that says ``begins_anew``. Yields the results in order, as handles that `fetch` opens;
        up to ``ahead`` are made in advance.
        """
        ...

    def fetch(self, handle: Any) -> Any:
        """What a handle stands for."""
        ...


class RankTools(Protocol):
    """What a rank is handed for its outer steps: the other ranks, a learner, a place for stored parameters."""

    @property
    def ranks(self) -> Ranks: ...

    def learner(self, saved: Saved, rules: Mapping[str, UpdateRule]) -> Learner:
        """What holds and updates learned tensors of a checkpoint, each by its rule."""
        ...

    def stored(self, num_parameters: int, num_steps: int) -> Callable[[], Stored]:
        """What makes the place where an unroll keeps its parameters."""
        ...


class Worker(Protocol):
    """Makes the outer steps of one rank."""

    def outer_step(self, step: int, prepared: Any) -> dict[str, float]:
        """One outer step; what it measured, the same on every rank."""
        ...

    def packed(self, step: int) -> Packed | None:
        """What is this rank's to keep after ``step`` outer steps, if anything. All ranks ask at once."""
        ...

    def save(self, step: int) -> Shard | None:
        """Write it."""
        ...


@dataclass(frozen=True)
class Chain:
    """Work that a distillation needs done ahead of its steps, such as the training of networks that judge.

    Attributes:
        link: as `Cluster.chain` takes it. spans: the tasks from an outer step on, in order: first and last
            (exclusive) outer step, and the task. shared: what all of them need.
    """

    link: Link
    spans: Callable[[int], Iterator[tuple[int, int, Any]]]
    shared: Any


class Job(Protocol):
    """A distillation as it is told to every rank."""

    @property
    def checkpoints(self) -> Checkpoints: ...

    @property
    def chain(self) -> Chain | None: ...

    def worker(self, saved: Saved, tools: RankTools) -> Worker:
        """What makes this rank's outer steps, from a checkpoint on."""
        ...


class Workers(Cluster, Protocol):
    """The processes that make the outer steps: this one, or a gang of ranks."""

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

    def spared(self) -> Spared | None:
        """After `WorkersLost`: what the others still held of a step after the newest checkpoint, written."""
        ...

    def peak_memory_bytes(self) -> int:
        """The most memory that one of them held."""
        ...

    def stop(self) -> None:
        """Stop all workers."""
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
