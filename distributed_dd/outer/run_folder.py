"""The folder of one run: its files, and how to go on after a kill."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from distributed_dd.durable import write_bytes
from distributed_dd.errors import IntegrityError
from distributed_dd.outer.checkpoint import Checkpoints


class Metrics:
    """``metrics.jsonl``: one line per outer step, kept whatever the tracker does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rewind(self, step: int) -> None:
        """Forget what was recorded after ``step``: a resumed run records it again."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (json.JSONDecodeError, KeyError):
                continue  # a line that a kill cut short
        write_bytes(self.path, "".join(line + "\n" for line in kept).encode())

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line and hand it to the operating system."""
        with open(self.path, "a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All lines."""
        return [json.loads(line) for line in self.path.read_text().splitlines()]


class RunFolder:
    """Paths inside one run's folder."""

    def __init__(self, path: Path, config_digest: str) -> None:
        self.path = path
        self.metrics = Metrics(path / "metrics.jsonl")
        self.checkpoints = Checkpoints(path / "checkpoint", config_digest)
        self.distilled = path / "distilled"
        self.report = path / "report.json"
        self.report_page = path / "report.md"
        self.log = path / "log.txt"
        self.rank_logs = path / "ranks"
        self.costs = path / "costs.json"
        self.tracked = path / "tracker.json"

    def absolute(self) -> "RunFolder":
        """The same folder for processes that start elsewhere."""
        return RunFolder(self.path.absolute(), self.checkpoints.config_digest)

    def set_aside(self) -> Path | None:
        """Move an existing folder away under the next free number; returns where."""
        if not self.path.exists():
            return None
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.{number}")).exists():
            number += 1
        os.replace(self.path, aside)
        return aside


def load_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        IntegrityError: the file cannot be read as safetensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise IntegrityError(str(path), f"cannot be read: {error}") from None
