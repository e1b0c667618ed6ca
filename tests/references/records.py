"""Records changed by somebody who also renews their digest: a stranger, not an accident."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distributed_dd.records import SEAL, sealed


def rewritten(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a record's values and seal it again."""
    record = json.loads(path.read_text())
    seal = record.pop(SEAL)
    change(record)
    path.write_text(json.dumps(sealed(seal["kind"], seal["owner"], record)))
