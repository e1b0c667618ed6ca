"""What the stages of a run cost, over all processes that worked on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distributed_dd.durable import read_json, write_json
from distributed_dd.outer.footprint import Footprint, footprint


class Costs:
    """Footprints by stage.

    Args:
        path: file that keeps them for the process that writes the report, which may be a later one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
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
        known = read_json(self._path) if self._path.exists() else {}
        if worked or stage not in known:
            known[stage] = [self[stage].seconds, self[stage].peak_bytes]
            if self._path.parent.exists():
                write_json(self._path, known)
        self[stage] = Footprint(*known[stage])
