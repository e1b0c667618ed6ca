"""What the stages ask of the outside world. Backends answer; tests use the plain local twins."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from distributed_dd.distillation.synthetic import SyntheticSet
from distributed_dd.distillation.unroll import MatchingGradient


class Cluster(Protocol):
    """Runs independent work somewhere."""

    def map(
        self, function: Callable[[Any, Any], Any], tasks: Sequence[Any], shared: Any
    ) -> Iterator[tuple[int, Any]]:
        """``function(task, shared)`` for every task; yields (index, result) as they finish."""
        ...


class Engine(Protocol):
    """Holds the synthetic set and updates it with ready-made gradients."""

    synthetic: SyntheticSet

    def step(self, gradient: MatchingGradient) -> None: ...

    def state(self) -> dict[str, Tensor]:
        """Momenta by name, whole, on the CPU."""
        ...

    def load(self, state: Mapping[str, Tensor]) -> None: ...


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
