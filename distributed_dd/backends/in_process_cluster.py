"""The plain twin of the Ray cluster: one task after the other, here."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from distributed_dd.backends.local_workers import Local


@dataclass(frozen=True)
class InProcess:
    """Run every task in this process, one after the other."""

    engine = Local()

    def map(
        self, function: Callable[[Any, Any], Any], tasks: Sequence[Any], shared: Any
    ) -> Iterator[tuple[int, Any]]:
        """``function(task, shared)`` in order."""
        for index, task in enumerate(tasks):
            yield index, function(task, shared)
