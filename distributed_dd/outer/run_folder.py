"""The folder of one run: its files, and how to go on after a kill."""

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distributed_dd.durable import append_text, refuse_irregular, sha256_of, write_lines
from distributed_dd.errors import IntegrityError
from distributed_dd.outer.checkpoint import Checkpoints


class Metrics:
    """``metrics.jsonl``: one line per outer step, kept whatever the tracker does. Read line by line, however long."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written = hashlib.sha256()

    @property
    def digest(self) -> str:
        """SHA-256 of all lines, since the last `rewind`."""
        return self._written.hexdigest()

    def rewind(self, step: int) -> int:
        """Forget what was recorded after ``step``: a resumed run records it again. How many lines went."""
        self._written, num_lines = hashlib.sha256(), 0
        if not self.path.exists():
            return 0

        def kept() -> Iterator[str]:
            nonlocal num_lines
            for values in self.read():
                if values["step"] <= step:
                    yield self._counted(json.dumps(values) + "\n")
                else:
                    num_lines += 1

        write_lines(self.path, kept())
        return num_lines

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line and hand it to the operating system.

        Raises:
            UserError: the disk is full.
        """
        append_text(self.path, self._counted(json.dumps({"step": step, **values}) + "\n"))

    def _counted(self, line: str) -> str:
        self._written.update(line.encode())
        return line

    def check(self, sha256: str) -> None:
        """Compare the file with the digest that a run keeps of it; an empty one says nothing.

        Raises:
            IntegrityError: lines were lost, changed, or are another run's.
        """
        if not sha256:
            return
        if not self.path.exists():
            raise IntegrityError(str(self.path), "is missing: what the run measured is not beside its report")
        if sha256_of(self.path) != sha256:
            raise IntegrityError(str(self.path), "is not what the run measured (SHA-256 differs)")

    def read(self) -> Iterator[dict[str, Any]]:
        """All lines, one at a time; none where there is no file. What is no line of metrics is left out.

        Raises:
            IntegrityError: there is something else in the place of the file.
        """
        if not self.path.exists():
            return
        refuse_irregular(self.path)
        with open(self.path, errors="replace") as file:
            for line in file:
                values = _values(line)
                if values is not None:
                    yield values


def _values(line: str) -> dict[str, Any] | None:
    """The metrics of one line; None where a kill cut it short, or it is something else."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) and type(values.get("step")) is int else None


class RunFolder:
    """Paths inside one run's folder."""

    def __init__(self, path: Path, config_digest: str) -> None:
        self.path, self.config_digest = path, config_digest
        self.metrics = Metrics(path / "metrics.jsonl")
        self.checkpoints = Checkpoints(path / "checkpoint", config_digest)
        self.distilled = path / "distilled"
        self.report = path / "report.json"
        self.report_page = path / "report.md"
        self.scored = path / "scored.jsonl"
        self.log = path / "log.txt"
        self.rank_logs = path / "ranks"
        self.costs = path / "costs.json"
        self.tracked = path / "tracker.json"

    def absolute(self) -> "RunFolder":
        """The same folder for processes that start elsewhere."""
        return RunFolder(self.path.absolute(), self.config_digest)

    def set_aside(self) -> Path | None:
        """Move an existing folder away under the next free number; returns where.

        The caller holds the folder's lock, which goes with it.
        """
        if not self.path.exists():
            return None
        aside = self.path.with_name(free_name(self.path.name, set(os.listdir(self.path.parent))))
        os.replace(self.path, aside)
        return aside


def free_name(name: str, taken: set[str]) -> str:
    """The first of ``name.1``, ``name.2``, .. that is not taken."""
    return next(free for number in itertools.count(1) if (free := f"{name}.{number}") not in taken)
