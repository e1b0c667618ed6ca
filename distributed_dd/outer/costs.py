"""What the stages of a run cost, over all processes that worked on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distributed_dd.outer.footprint import Footprint, footprint
from distributed_dd.records import read_record, write_record

KIND = "costs"


class Costs:
    """Footprints by stage.

    Args:
        path: file that keeps them for the process that writes the report, which may be a later one.
        owner: digest of the run's configuration.
    """

    def __init__(self, path: Path, owner: str) -> None:
        self._path, self._owner = path, owner
        self._by_stage: dict[str, Footprint] = {}

    def __getitem__(self, stage: str) -> Footprint:
        return self._by_stage[stage]

    def __setitem__(self, stage: str, cost: Footprint) -> None:
        self._by_stage[stage] = cost

    @contextmanager
    def timed(self, stage: str) -> Iterator[Footprint]:
        """Record what the body costs as the cost of a stage."""
        with footprint() as self._by_stage[stage]:
            yield self._by_stage[stage]

    def remember(self, stage: str, worked: bool) -> None:
        """Write down what a stage cost; where nothing was done in it now, its cost is what was written earlier."""
        known: dict[str, Any] = {}
        if self._path.exists():
            known = read_record(self._path, KIND, owner=self._owner)
        if worked or stage not in known:
            known[stage] = [self[stage].seconds, self[stage].peak_bytes]
            if self._path.parent.exists():
                write_record(self._path, KIND, self._owner, known)
        self[stage] = Footprint(*known[stage])
