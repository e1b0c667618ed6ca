"""What the stages ask of the outside world. Backends answer; tests use the plain local twins."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from distributed_dd.distillation.methods.generative import Adam
from distributed_dd.distillation.methods.trajectory_matching import ParameterSGD
from distributed_dd.distillation.sharded import Ranks
from distributed_dd.distillation.unroll import MatchingGradient, Stored
from distributed_dd.stages.checkpoint import Checkpoints, Saved, Shard

Link = Callable[[Any, Any, Any], tuple[Any, Any]]


class Cluster(Protocol):
    """Runs independent work somewhere."""

    def map(
        self, function: Callable[[Any, Any], Any], tasks: Sequence[Any], shared: Any
    ) -> Iterator[tuple[int, Any]]:
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


class NetworkEngine(Protocol):
    """Holds the flat parameters of a network, or this rank's part of them, and updates them by Adam."""

    def read(self) -> Tensor:
        """All parameters (P,) as they are now."""
        ...

    def step(self, gradient_P: Tensor) -> None:
        """One update. The gradients that ranks hand in add up."""
        ...

    def state(self) -> dict[str, Tensor]:
        """``theta``, ``mean`` and ``square`` (P,), whole, and ``updates``; copies. All ranks must ask."""
        ...


class Engines(Protocol):
    """Makes what holds and updates the learned things, from a checkpoint."""

    @property
    def ranks(self) -> Ranks: ...

    def of_set(self, saved: Saved, optimizers: Mapping[str, ParameterSGD]) -> Engine:
        """A synthetic set."""
        ...

    def of_network(self, saved: Saved, name: str, adam: Adam) -> NetworkEngine:
        """A network that the checkpoint holds under ``name``."""
        ...

    def stored(self, num_parameters: int, num_steps: int) -> Callable[[], Stored]:
        """What makes the place where an unroll keeps its parameters."""
        ...


class Worker(Protocol):
    """Makes the outer steps of one rank."""

    def outer_step(self, step: int, prepared: Any) -> dict[str, float]:
        """One outer step; what it measured, the same on every rank."""
        ...

    def save(self, step: int) -> Shard | None:
        """Write what is this rank's to keep, if anything."""
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

    def worker(self, saved: Saved, engines: Engines) -> Worker:
        """What makes this rank's outer steps, from a checkpoint on."""
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
