"""The plain twin of the Ray cluster: one task after the other, here."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from distributed_dd.backends.engines import ENGINES, Engine
from distributed_dd.backends.local.engine import Local
from distributed_dd.family import choice, require
from distributed_dd.outer.ports import Link


@dataclass(frozen=True)
class InProcess:
    """Run every task in this process, one after the other."""

    engine: Engine = choice(ENGINES, "who does the distillation: this process", Local())

    def __post_init__(self) -> None:
        fix = "kind: ray in the cluster file, with num_cpus: of as many cores as there are ranks"
        require(
            isinstance(self.engine, Local),
            "engine",
            "ranks are processes that Ray starts",
            "kind: local",
            fix,
        )

    def map(self, function: Callable[[Any, Any], Any], tasks: Sequence[Any], shared: Any) -> Iterator[tuple[int, Any]]:
        """``function(task, shared)`` in order."""
        for index, task in enumerate(tasks):
            yield index, function(task, shared)

    def chain(self, function: Link, tasks: Iterable[Any], shared: Any, ahead: int) -> Iterator[Any]:
        """The results of a chain; each task runs when its result is asked for."""
        state = None
        for task in tasks:
            result, state = function(task, None if task.begins_anew else state, shared)
            yield result

    def fetch(self, handle: Any) -> Any:
        """The result itself."""
        return handle

    def threads_beside_a_task(self) -> int | None:
        """Tasks run in this process: it may keep all its threads."""
        return None
