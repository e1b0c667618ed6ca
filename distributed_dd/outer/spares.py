"""What ranks keep in memory of themselves and of each other, so that a lost rank costs no more than a step.

After an outer step every rank packs what it would write to a checkpoint, keeps it, and hands a copy to a peer. When a
rank dies, those that are left still hold everything of a step that all had finished.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

from distributed_dd.outer.checkpoint import Packed, Shard

GENERATIONS = 2
"""A rank that dies may have handed over one step less than the others."""
MOST_METRICS = 100
SHARE_OF_TIME, MOST_DURATIONS, SHORTEST_STEP = 0.1, 20, 1e-3

Measured = tuple[int, Mapping[str, float]]
"""Outer steps made, and what the last of them measured."""


@dataclass(frozen=True)
class Spare:
    """What one rank needs to go on after ``step`` outer steps.

    Attributes:
        packed: its part of a checkpoint; None where other ranks write all of it.
        measured: what the last outer steps up to this one measured, oldest first.
    """

    step: int
    packed: Packed | None
    measured: Sequence[Measured]

    @property
    def num_bytes(self) -> int:
        """Bytes of tensors."""
        return len(self.packed.content) if self.packed else 0


@dataclass(frozen=True)
class Spared:
    """What survivors brought together: shards, written, of a step that every rank had finished."""

    step: int
    shards: Sequence[Shard]
    measured: Sequence[Measured]


@dataclass
class Spares:
    """The newest spares of a rank and of its peer, by rank and step; one thread fills them, another asks."""

    held: dict[int, dict[int, Spare]] = field(default_factory=dict)
    recent: deque[Measured] = field(default_factory=lambda: deque(maxlen=MOST_METRICS))
    durations: dict[str, deque[float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Note how long a ``step``, or to ``hand over``, takes."""
        started = time.monotonic()
        yield
        self.durations.setdefault(what, deque(maxlen=MOST_DURATIONS)).append(time.monotonic() - started)

    def affordable_every(self) -> int:
        """Outer steps between two of which one is handed over, such that this takes a tenth of the time at most."""
        steps, handed = self.durations.get("step"), self.durations.get("hand over")
        if not steps or not handed:
            return 1
        return max(1, math.ceil(median(handed) / (SHARE_OF_TIME * max(median(steps), SHORTEST_STEP))))

    def keep(self, rank: int, spare: Spare) -> None:
        """Keep a rank's newest spare, and let the oldest go."""
        with self._lock:
            of_rank = self.held.setdefault(rank, {})
            of_rank[spare.step] = spare
            for step in sorted(of_rank)[:-GENERATIONS]:
                del of_rank[step]

    def steps(self) -> dict[int, list[int]]:
        """Rank -> steps that it could go on from."""
        with self._lock:
            return {rank: sorted(of_rank) for rank, of_rank in self.held.items()}

    def of(self, rank: int, step: int) -> Spare | None:
        """A rank's spare of a step, if it is here."""
        with self._lock:
            return self.held.get(rank, {}).get(step)

    def clear(self) -> None:
        """Let everything go: the ranks begin elsewhere."""
        with self._lock:
            self.held.clear()
            self.recent.clear()

    @property
    def num_bytes(self) -> int:
        """Bytes of tensors that are held."""
        with self._lock:
            return sum(spare.num_bytes for of_rank in self.held.values() for spare in of_rank.values())


def peer_of(rank: int, num_ranks: int) -> int:
    """Who keeps a rank's spares: half a round away, so that ranks of one node have theirs on another."""
    return (rank + max(1, num_ranks // 2)) % num_ranks


def newest_of_all(steps: Sequence[Mapping[int, Sequence[int]]], num_ranks: int) -> list[int]:
    """Steps of which spares of every rank are held somewhere, newest first; ``steps``: what each survivor holds."""
    held = [{step for one in steps for step in one.get(rank, ())} for rank in range(num_ranks)]
    return sorted(set.intersection(*held), reverse=True) if held else []
