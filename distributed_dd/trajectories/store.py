"""The experts of one recipe: each written whole, checksummed, read from disk as asked for."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import save
from torch import Tensor

from distributed_dd.durable import as_json, digest, is_half_written, parsed, sha256_of
from distributed_dd.errors import IntegrityError, MissingInputError
from distributed_dd.records import opened, owner_of, sealed
from distributed_dd.trajectories.epochs import format_epochs
from distributed_dd.trajectories.folder import Folder, folder_at, inside
from distributed_dd.trajectories.trajectory import Trajectory, open_trajectory
from distributed_dd.trajectories.unfinished import Unfinished, epochs_reached

SCHEMA = 1
MANIFEST, MANIFEST_KIND, RECORD_KIND = "manifest.json", "experts", "expert"
ANEW = "restore it, or delete it and run the same command: what is missing is trained again"
OTHERS = "belongs to other experts (another network, data set, recipe or seed)"
READERS = 16

Fits = Callable[[Mapping[str, Any]], bool]


def _any(record: Mapping[str, Any]) -> bool:
    return True


class TrajectoryStore:
    """``manifest.json``, and for every expert one file and one record of facts.

    An expert counts as stored when its record is there; the record is written last. The manifest
    gathers the records for people and for those who only read.

    Args:
        folder: where they lie.
        identity_digest: SHA-256 of ``identity``; whatever is there with another one is refused.
        identity: everything that decides an expert but its number.
    """

    def __init__(self, folder: Folder, identity_digest: str, identity: Mapping[str, Any]) -> None:
        self.folder, self.digest, self.identity = folder, identity_digest, dict(identity)
        self._verified: dict[int, Path] = {}

    @classmethod
    def below(cls, root: str | Path, identity: Mapping[str, Any], known_digest: str = "") -> "TrajectoryStore":
        """The store of these experts in ``root``, a folder or a URI that holds all stores.

        ``known_digest`` is for those who only read and do not know the whole identity.

        Raises:
            IntegrityError: ``known_digest`` is no digest; a stranger's could name any folder.
        """
        identity_digest = known_digest or digest(identity)
        if not re.fullmatch("[0-9a-f]{64}", identity_digest):
            raise IntegrityError(f"store {identity_digest[:80]!r}", "is no digest of an expert store")
        return cls(inside(root, identity_digest[:16]), identity_digest, identity)

    @classmethod
    def at(cls, place: str | Path) -> "TrajectoryStore":
        """The store that lies in ``place``, a folder or a URI, whichever experts it holds.

        Raises:
            MissingInputError: there is no store in ``place``.
        """
        folder = folder_at(place)
        if MANIFEST not in folder.names():
            problem = "holds no expert store (no manifest.json)"
            raise MissingInputError(str(folder), problem, fix="distributed-dd import, or leave experts.store out")
        needs = {"digest": str, "identity": dict}
        values = opened(
            _json(folder, MANIFEST),
            f"{folder}/{MANIFEST}",
            MANIFEST_KIND,
            fix=ANEW,
            needs=needs,
            older=lambda values: values["digest"],
        )
        return cls(folder, values["digest"], values["identity"])

    @property
    def num_experts(self) -> int:
        """Experts in the manifest."""
        return len(self._manifest()["experts"])

    @property
    def content_sha256(self) -> str:
        """One digest of all trajectories in the manifest, whoever trained them and how long it took."""
        return digest([[entry["expert"], entry["sha256"]] for entry in self._manifest()["experts"]])

    def name_of(self, expert: int) -> str:
        """The file of expert number ``expert``, inside the folder."""
        return f"expert-{expert:04d}.safetensors"

    def write(
        self, expert: int, tensors: Mapping[str, Tensor], epochs: Sequence[float], facts: Mapping[str, Any]
    ) -> None:
        """Store one expert: the file, then its record, each atomically.

        Safe to repeat and to be killed anywhere: without its record an expert counts as missing.
        """
        # One metadata key only: safetensors writes several in random order, and the hash would differ.
        contiguous = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
        content = save(contiguous, {"expert": f"{self.digest}/{expert}"})
        sha256 = self.folder.write(self.name_of(expert), content)
        record = {
            "expert": expert,
            "store": self.digest,
            "sha256": sha256,
            "bytes": len(content),
            "epochs": format_epochs(epochs),
        }
        self.folder.write(_record_of(expert), as_json(sealed(RECORD_KIND, self.digest, {**record, **facts})))

    def unfinished(self, expert: int, recorded: Sequence[float]) -> Unfinished:
        """What an expert in training has reached."""
        return Unfinished(self.folder, self.digest, expert, recorded)

    def epochs_reached(self) -> dict[int, int]:
        """For every expert in training, its last saved epoch."""
        return epochs_reached(self.folder)

    def records(self, num_experts: int) -> dict[int, dict[str, Any]]:
        """The records of the experts below ``num_experts`` that are stored.

        Raises:
            IntegrityError: the folder holds other experts; nothing in it may be changed.
        """
        names = self.folder.names()
        if MANIFEST in names:
            self._manifest()
        there = [e for e in range(num_experts) if {self.name_of(e), _record_of(e)} <= names]
        with ThreadPoolExecutor(READERS) as pool:
            return dict(zip(there, pool.map(self._record, there), strict=True))

    def missing(self, num_experts: int, fits: Fits = _any) -> list[int]:
        """Numbers below ``num_experts`` that are not stored, or whose record does not fit.

        Raises:
            IntegrityError: as `records`.
        """
        records = self.records(num_experts)
        return [e for e in range(num_experts) if e not in records or not fits(records[e])]

    def damaged(self, experts: Iterable[int]) -> list[int]:
        """Those of ``experts`` whose file is not what was written, as far as `Folder.intact` can tell."""
        asked = list(experts)

        def intact(expert: int) -> bool:
            record = self.facts(expert)
            return self.folder.intact(self.name_of(expert), record["sha256"], record.get("bytes"))

        with ThreadPoolExecutor(READERS) as pool:  # hashing and waiting for a disk both let others run
            return [expert for expert, is_intact in zip(asked, pool.map(intact, asked), strict=True) if not is_intact]

    def set_aside(self, expert: int) -> str:
        """Make a stored expert a missing one, its file kept under the name that is returned."""
        aside = f"{self.name_of(expert)}.damaged"
        self.folder.remove(_record_of(expert))
        self.folder.set_aside(self.name_of(expert), aside)
        self._verified.pop(expert, None)
        return aside

    def sweep(self) -> None:
        """Remove what stored experts left of their training, and what killed writers left.

        For when no task of this driver runs any more.
        """
        reached, names = self.epochs_reached(), self.folder.names()
        for name in filter(is_half_written, names):
            self.folder.remove(name)
        for expert in reached:
            if _record_of(expert) in names:
                self.unfinished(expert, ()).clear()

    def write_manifest(self, num_experts: int) -> None:
        """Gather the records of the stored experts into ``manifest.json``.

        Raises:
            IntegrityError: a record or the manifest that is there belongs to other experts.
        """
        known = self._manifest()["experts"] if MANIFEST in self.folder.names() else []
        records = self.records(num_experts)
        experts = [records[e] for e in sorted(records)]
        experts += [entry for entry in known if entry["expert"] >= num_experts]
        if experts != known:
            identity = {"digest": self.digest, "identity": self.identity}
            values = {"schema": SCHEMA, **identity, "experts": experts}
            self.folder.write(MANIFEST, as_json(sealed(MANIFEST_KIND, self.digest, values)))

    def facts(self, expert: int) -> dict[str, Any]:
        """What was recorded with an expert: its epochs, accuracies, seconds and SHA-256."""
        try:
            return self._record(expert)
        except MissingInputError:
            pass
        for entry in self._manifest()["experts"]:
            if entry["expert"] == expert:
                return entry
        raise self._absent(expert)

    def open(self, expert: int) -> Trajectory:
        """The trajectory of one expert, its checksum verified once per process.

        Raises:
            MissingInputError: the expert is not in the store. IntegrityError: its file is not what was written.
        """
        if expert not in self._verified:
            if self.name_of(expert) not in self.folder.names():
                raise self._absent(expert)
            sha256 = self.facts(expert)["sha256"]
            path = self.folder.path(self.name_of(expert), sha256)
            if sha256_of(path) != sha256:
                raise IntegrityError(
                    f"{self.folder}/{self.name_of(expert)}",
                    "is not the file that was written (SHA-256 differs)",
                    fix="delete it and run the same command: only this expert is trained again",
                )
            self._verified[expert] = path
        return open_trajectory(self._verified[expert])

    def _absent(self, expert: int) -> MissingInputError:
        problem = f"holds no expert {expert}"
        return MissingInputError(str(self.folder), problem, fix="distributed-dd experts FILE")

    def _manifest(self) -> dict[str, Any]:
        return self._own(MANIFEST, MANIFEST_KIND, {"schema": Literal[1], "experts": list})

    def _record(self, expert: int) -> dict[str, Any]:
        record = self._own(_record_of(expert), RECORD_KIND, {"expert": int, "sha256": str})
        if record["expert"] != expert:
            self._refuse(_record_of(expert), f"is the record of expert {record['expert']}")
        return record

    def _own(self, name: str, kind: str, needs: Mapping[str, Any]) -> dict[str, Any]:
        """A record of this store."""
        where = f"{self.folder}/{name}"
        record = opened(
            _json(self.folder, name),
            where,
            kind,
            fix=ANEW,
            needs=needs,
            older=_store_of,
        )
        if owner_of(record) != self.digest:
            self._refuse(name, OTHERS)
        return record

    def _refuse(self, name: str, problem: str) -> None:
        fix = f"move {self.folder} away and run the same command"
        allowed = f"schema {SCHEMA}, digest {self.digest}"
        raise IntegrityError(f"{self.folder}/{name}", problem, allowed=allowed, fix=fix)


def _store_of(values: Mapping[str, Any]) -> str:
    """The digest of the store that an expert's record or a manifest of older versions names."""
    return str(values.get("store") or values.get("digest"))


def _record_of(expert: int) -> str:
    return f"expert-{expert:04d}.json"


def _json(folder: Folder, name: str) -> Any:
    return parsed(folder.read(name), f"{folder}/{name}", ANEW)
