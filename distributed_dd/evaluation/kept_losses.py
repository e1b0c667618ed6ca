"""The losses of a diagnosis that are known already: after a kill they are not asked again."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed_dd.durable import append_text, digest, refuse_irregular
from distributed_dd.errors import IntegrityError
from distributed_dd.evaluation.diagnosis import finite
from distributed_dd.records import opened, sealed

KIND = "losses"
NEEDS = {"asked": str, "losses": list}


@dataclass
class KeptLosses:
    """``losses.jsonl``: a line for each stretch of outer steps, asked at all sets.

    Args:
        owner: digest of what is diagnosed; lines about something else are not used.
    """

    path: Path
    owner: str
    _losses: dict[str, list[list[float]]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if not self.path.exists():
            return
        refuse_irregular(self.path)
        for line in self.path.read_text(errors="replace").splitlines():
            try:
                record = opened(json.loads(line), str(self.path), KIND, owner=self.owner, needs=NEEDS)
                losses = [[math.inf if loss is None else loss for loss in own] for own in record["losses"]]
            except (ValueError, TypeError, RecursionError, IntegrityError):
                continue  # cut short by a kill, or about another experiment: that stretch is asked again
            self._losses[record["asked"]] = losses

    def get(self, key: Any) -> list[list[float]] | None:
        """Losses (sets, steps); None where they are not known. ``key``: plain values."""
        return self._losses.get(digest(key))

    def keep(self, key: Any, losses: Sequence[Sequence[float]]) -> None:
        """Write them down; those that are not finite become infinite."""
        name = digest(key)
        values = {"asked": name, "losses": [[finite(loss) for loss in own] for own in losses]}
        append_text(self.path, json.dumps(sealed(KIND, self.owner, values)) + "\n")
        self._losses[name] = [[loss if math.isfinite(loss) else math.inf for loss in own] for own in losses]
