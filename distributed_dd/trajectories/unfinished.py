"""What an expert in training has reached, kept so that whoever repeats the task goes on from there.

Every save adds one small content, ``expert-0003.part-00000-00007-<hash>``: the epochs reached since the
save before, and the state to go on from. Nothing is rewritten, so it works on object stores too.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from distributed_dd.errors import IntegrityError, MissingInputError
from distributed_dd.trajectories.folder import Folder

MARK = ".part-"
HASH_LENGTH = 16


@dataclass(kw_only=True)
class Reached:
    """A training after ``epoch`` epochs: recorded rows (P,) by epoch, and what it goes on from."""

    epoch: int
    theta_P: Tensor
    velocity_P: Tensor
    seconds: float
    rows: dict[float, Tensor] = field(default_factory=dict)


class Unfinished:
    """The saves of one expert.

    Args:
        owner: digest of the store; saves of another store or expert are not used.
        recorded: the epochs that are recorded; saves made with others are not used.
    """

    def __init__(self, folder: Folder, owner: str, expert: int, recorded: Sequence[float]) -> None:
        self._folder, self._prefix, self._recorded = folder, f"expert-{expert:04d}{MARK}", recorded
        self._owner = f"{owner}/{expert}"

    def save(self, since: int, reached: Reached) -> None:
        """Keep what was reached since epoch ``since``."""
        epochs = [e for e in self._recorded if (since < e or since == 0 == e) and e <= reached.epoch]
        tensors = {"theta": reached.theta_P.cpu(), "velocity": reached.velocity_P.cpu()}
        if epochs:
            tensors["rows"] = torch.stack([reached.rows[epoch].cpu() for epoch in epochs])
        facts = {"owner": self._owner, "epoch": reached.epoch, "epochs": epochs, "seconds": reached.seconds}
        # A single metadata key: safetensors writes several in random order.
        content = save({name: t.contiguous() for name, t in tensors.items()}, {"facts": json.dumps(facts)})
        self._folder.write(f"{self._prefix}{since:05d}-{reached.epoch:05d}-{_hash(content)}", content)

    def load(self) -> Reached | None:
        """The furthest state that an unbroken, undamaged chain of saves leads to."""
        reached: Reached | None = None
        spans = _spans(self._folder, self._prefix)
        while True:
            at = reached.epoch if reached else 0
            following = sorted(((end, name) for start, end, name in spans if start == at < end), reverse=True)
            further = next((part for _, name in following if (part := self._part(at, name))), None)
            if further is None:
                return reached
            further.rows = {**(reached.rows if reached else {}), **further.rows}
            reached = further

    def clear(self) -> None:
        """Remove all saves of this expert."""
        for _, _, name in _spans(self._folder, self._prefix):
            self._folder.remove(name)

    def _part(self, since: int, name: str) -> Reached | None:
        try:
            content = self._folder.read(name)
            if _hash(content) != name.rsplit("-", 1)[-1]:
                return None
            tensors = load(content)
            facts = json.loads(metadata_of(content)["facts"])
        except (MissingInputError, IntegrityError, SafetensorError, ValueError, KeyError):
            return None  # removed meanwhile, or damaged: these epochs are trained again
        if facts.get("owner") != self._owner:
            return None
        expected = [e for e in self._recorded if (since < e or since == 0 == e) and e <= facts["epoch"]]
        if facts["epochs"] != expected:
            return None
        rows = dict(zip(expected, tensors["rows"].unbind(), strict=True)) if expected else {}
        return Reached(
            epoch=facts["epoch"],
            theta_P=tensors["theta"],
            velocity_P=tensors["velocity"],
            seconds=facts["seconds"],
            rows=rows,
        )


def epochs_reached(folder: Folder) -> dict[int, int]:
    """For every expert with saves, the last epoch of the newest."""
    reached: dict[int, int] = {}
    for name in folder.names():
        if MARK in name and not name.startswith("."):
            expert = int(name.split(MARK)[0].removeprefix("expert-"))
            reached[expert] = max(reached.get(expert, 0), int(name.split("-")[-2]))
    return reached


def _spans(folder: Folder, prefix: str) -> list[tuple[int, int, str]]:
    names = [name for name in folder.names() if name.startswith(prefix)]
    return [(int(name.split("-")[-3]), int(name.split("-")[-2]), name) for name in names]


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:HASH_LENGTH]


def metadata_of(content: bytes) -> dict[str, str]:
    """The words that a safetensors file carries beside its tensors."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]).get("__metadata__", {})
