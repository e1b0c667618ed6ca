"""A folder of expert trajectories: each written whole, checksummed, memory-mapped on read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from distributed_dd.durable import read_json, sha256_of, write_bytes, write_json
from distributed_dd.errors import IntegrityError, MissingInputError

SCHEMA = 1
OTHERS = "belongs to other experts (another network, data set, recipe or seed)"


class Trajectory:
    """One expert's parameters after each epoch, (epochs + 1, P), read from disk row by row."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = safe_open(path, framework="pt")
            self._rows = self._file.get_slice("trajectory")
            self.num_checkpoints, self.num_parameters = self._rows.get_shape()
        except (SafetensorError, OSError) as error:
            raise IntegrityError(str(path), f"is no trajectory: {error}") from None

    def checkpoint(self, epoch: int) -> Tensor:
        """Parameters (P,) float32 after ``epoch`` epochs; a negative one counts from the end."""
        if epoch < 0:
            epoch += self.num_checkpoints
        return self._rows[epoch : epoch + 1].squeeze(0).float()


class TrajectoryStore:
    """``root/<digest>/`` with ``manifest.json`` and one file per expert.

    Args:
        root: the folder that holds all stores.
        identity: everything that decides an expert but its number; its digest names the folder.
    """

    def __init__(self, root: Path, identity_digest: str, identity: Mapping[str, Any]) -> None:
        self.folder = root / identity_digest[:16]
        self.digest, self.identity = identity_digest, dict(identity)
        self._verified: set[int] = set()

    @classmethod
    def at(cls, folder: Path) -> "TrajectoryStore":
        """The store that lies in ``folder``, whatever it is of.

        Raises:
            MissingInputError: there is none.
        """
        manifest = folder / "manifest.json"
        if not manifest.exists():
            problem = "holds no expert store (no manifest.json)"
            raise MissingInputError(
                str(folder), problem, fix="distributed-dd import, or leave experts.store out"
            )
        values = read_json(manifest)
        store = cls(folder.parent, str(values.get("digest")), values.get("identity", {}))
        store.folder = folder
        return store

    @property
    def num_experts(self) -> int:
        """Experts in the manifest."""
        return len(self._manifest()["experts"])

    def file_of(self, expert: int) -> Path:
        """Where expert number ``expert`` lies."""
        return self.folder / f"expert-{expert:04d}.safetensors"

    def write(self, expert: int, trajectory: Tensor, facts: Mapping[str, Any]) -> None:
        """Store one expert: the file, then its record, each atomically.

        Safe to repeat and to be killed anywhere: without its record an expert counts as missing.
        """
        # One metadata key only: safetensors writes several in random order, and the hash would differ.
        content = save({"trajectory": trajectory.contiguous()}, {"expert": f"{self.digest}/{expert}"})
        sha256 = write_bytes(self.file_of(expert), content)
        record = {"expert": expert, "store": self.digest, "sha256": sha256, **facts}
        write_json(self._record_of(expert), record)

    def missing(self, num_experts: int) -> list[int]:
        """Numbers below ``num_experts`` that are not stored whole.

        Raises:
            IntegrityError: the folder holds other experts; nothing in it may be changed.
        """
        if self._manifest_path.exists():
            self._manifest()
        return [e for e in range(num_experts) if not self._is_stored(e)]

    def write_manifest(self, num_experts: int) -> None:
        """Gather the records of the stored experts into ``manifest.json``.

        Raises:
            IntegrityError: a record or the manifest that is there belongs to other experts.
        """
        known = self._manifest()["experts"] if self._manifest_path.exists() else []
        experts = [self._record(e) for e in range(num_experts)]
        experts += [entry for entry in known if entry["expert"] >= num_experts]
        if experts != known:
            identity = {"digest": self.digest, "identity": self.identity}
            write_json(self._manifest_path, {"schema": SCHEMA, **identity, "experts": experts})

    def facts(self, expert: int) -> dict[str, Any]:
        """What was recorded with an expert: its accuracies, seconds and SHA-256."""
        for entry in self._manifest()["experts"]:
            if entry["expert"] == expert:
                return entry
        raise MissingInputError(
            str(self.folder), f"holds no expert {expert}", fix="distributed-dd experts FILE"
        )

    def open(self, expert: int) -> Trajectory:
        """The trajectory of one expert, its checksum verified once per process.

        Raises:
            MissingInputError: not there. IntegrityError: not what was written.
        """
        path = self.file_of(expert)
        if not path.exists():
            raise MissingInputError(str(path), "there is no such expert", fix="distributed-dd experts FILE")
        if expert not in self._verified:
            if sha256_of(path) != self.facts(expert)["sha256"]:
                raise IntegrityError(
                    str(path),
                    "is not the file that was written (SHA-256 differs)",
                    fix="delete it and run the same command: only this expert is trained again",
                )
            self._verified.add(expert)
        return Trajectory(path)

    @property
    def _manifest_path(self) -> Path:
        return self.folder / "manifest.json"

    def _manifest(self) -> dict[str, Any]:
        manifest = read_json(self._manifest_path)
        if manifest.get("schema") != SCHEMA:
            self._refuse(self._manifest_path, f"has schema {manifest.get('schema')}")
        if manifest.get("digest") != self.digest:
            self._refuse(self._manifest_path, OTHERS)
        return manifest

    def _record(self, expert: int) -> dict[str, Any]:
        path = self._record_of(expert)
        record = read_json(path)
        if record.get("store") != self.digest:
            self._refuse(path, OTHERS)
        return record

    def _refuse(self, path: Path, problem: str) -> None:
        fix = f"move {self.folder} away and run the same command"
        raise IntegrityError(str(path), problem, allowed=f"schema {SCHEMA}, digest {self.digest}", fix=fix)

    def _record_of(self, expert: int) -> Path:
        return self.folder / f"expert-{expert:04d}.json"

    def _is_stored(self, expert: int) -> bool:
        return self.file_of(expert).exists() and self._record_of(expert).exists()


def check_fits(trajectory: Trajectory, where: str, num_parameters: int, num_epochs: int) -> None:
    """Refuse a trajectory of another network or of too few epochs."""
    if trajectory.num_parameters != num_parameters:
        raise IntegrityError(
            where,
            f"holds {trajectory.num_parameters:,} parameters",
            allowed=f"{num_parameters:,}, as the network in the configuration",
        )
    if trajectory.num_checkpoints < num_epochs + 1:
        raise IntegrityError(
            where, f"holds {trajectory.num_checkpoints} checkpoints", allowed=f"{num_epochs + 1} or more"
        )


def stacked(checkpoints: list[Tensor]) -> Tensor:
    """Checkpoints (P,) as one trajectory (epochs + 1, P), float32 on the CPU."""
    return torch.stack([c.float().cpu() for c in checkpoints])
