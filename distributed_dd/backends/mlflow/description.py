"""What a run is to a tracker, and the file that keeps it for servers that missed the run."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distributed_dd.records import read_record, write_record

KIND = "tracker"
NEEDS: dict[str, Any] = {
    "experiment": str,
    "name": str,
    "parameters": dict,
    "tags": dict,
    "dataset": dict | None,
    "loss": str,
    "picture": str,
    "runs": dict,
}


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a run is, to a tracker.

    Attributes:
        dataset: its name, ``sha256`` and numbers of images, where there is one.
        loss: a metric that every outer step has. picture: what pictures on the way are called.
    """

    experiment: str
    name: str
    parameters: Mapping[str, Any]
    tags: Mapping[str, str]
    dataset: Mapping[str, Any] | None = None
    loss: str = "matching_loss"
    picture: str = "synthetic_set"

    def keep(self, record: Path, runs: Mapping[str, str], status: str) -> None:
        """Write it as ``tracker.json``, with the run's id on each server and how the run ended."""
        write_record(record, KIND, self.name, {**asdict(self), "runs": runs, "status": status}, private=True)


def read_tracked(record: Path, name: str | None = None) -> dict[str, Any]:
    """What a run's ``tracker.json`` says: its description, its id on each server, how it ended.

    Raises:
        IntegrityError: it was changed, or belongs to a run of another name.
    """
    return read_record(record, KIND, owner=name, needs=NEEDS, older=lambda values: values["name"])
