"""The networks of an evaluation that are trained and scored already: after a kill they are not trained again."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed_dd.durable import append_text, digest, refuse_irregular
from distributed_dd.errors import IntegrityError
from distributed_dd.records import opened, sealed

KIND = "scored network"
NEEDS = {"network": str, "accuracy": float, "peak_bytes": int}


@dataclass
class Scored:
    """``scored.jsonl``: a line for each network.

    Args:
        owner: digest of the manifest of what is evaluated; lines about something else are not used.
    """

    path: Path
    owner: str
    _outcomes: dict[str, tuple[float, int, Any]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if not self.path.exists():
            return
        refuse_irregular(self.path)
        with open(self.path, errors="replace") as file:
            for line in file:
                self._take(line)

    def _take(self, line: str) -> None:
        try:
            record = opened(json.loads(line), str(self.path), KIND, owner=self.owner, needs=NEEDS)
        except (ValueError, RecursionError, IntegrityError):
            return  # cut short by a kill, or about another result: that network is trained again
        self._outcomes[record["network"]] = (record["accuracy"], record["peak_bytes"], record.get("confusion", ()))

    def get(self, key: Any) -> tuple[float, int, Any] | None:
        """The accuracy in [0, 1] of a network, the bytes that it took, its confusion; None where it is not scored yet.

        ``key``: plain values that tell networks apart.
        """
        return self._outcomes.get(digest(key))

    def keep(self, key: Any, outcome: Sequence[Any]) -> None:
        """Write down what a network reached."""
        accuracy, peak_bytes, confusion = outcome
        values = {"network": digest(key), "accuracy": accuracy, "peak_bytes": peak_bytes, "confusion": confusion}
        append_text(self.path, json.dumps(sealed(KIND, self.owner, values)) + "\n")
        self._outcomes[values["network"]] = (accuracy, peak_bytes, confusion)
