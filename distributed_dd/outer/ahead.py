"""Work that outer steps need beforehand, done while earlier steps are made."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from distributed_dd.outer.ports import Chain, Cluster

TASKS_AHEAD = 3


@dataclass
class Ahead:
    """The chain of a job from an outer step on: hands out what was prepared for each span of steps."""

    _planned: Iterator[tuple[int, int, Any]] | None
    _handles: Iterator[Any] | None
    _now: tuple[int, int, Any] | None = field(default=None)

    @staticmethod
    def of(chain: Chain | None, step: int, cluster: Cluster) -> "Ahead":
        """What is needed from outer step ``step`` on, made on a cluster; nothing without a chain."""
        if chain is None:
            return Ahead(None, None)
        tasks = (task for _, _, task in chain.spans(step))
        return Ahead(chain.spans(step), cluster.chain(chain.link, tasks, chain.shared, TASKS_AHEAD))

    def spans(self, first: int, last: int) -> Iterator[tuple[int, int, Any]]:
        """First .. last cut where what was prepared changes: first and last of each part, and its handle."""
        if self._planned is None or self._handles is None:
            yield first, last, None
            return
        while first < last:
            if self._now is None or self._now[1] <= first:
                start, end, _ = next(self._planned)
                self._now = start, end, next(self._handles)
            yield first, min(last, self._now[1]), self._now[2]
            first = min(last, self._now[1])
