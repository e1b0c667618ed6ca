"""Checkpoints of a distillation: each rank writes the rows it keeps, any number of ranks reads them back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from distributed_dd.durable import is_half_written, read_json, sha256_of, write_bytes, write_json
from distributed_dd.errors import IntegrityError
from distributed_dd.learning.update_rules import is_by_row

KEPT = ("newest", "best", "start")


@dataclass(frozen=True)
class Shard:
    """A file with rows first .. last of the set and of everything that is kept row by row."""

    file: str
    sha256: str
    first: int
    last: int


class Saved:
    """What shards hold, read row by row, so that no process has to hold all of it.

    Names of a set: ``images``, ``labels``, ``classes`` by row, ``learning_rate`` where it is learned; the same
    after ``average.`` and after the slots of update rules, such as ``momentum.``; ``state.`` is the method's
    own. A generator has no rows.
    """

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        self.folder, self.shards = folder, shards

    @property
    def num_rows(self) -> int:
        """Images in the whole set."""
        return max(shard.last for shard in self.shards)

    def names(self) -> set[str]:
        """What is kept."""
        return set(self._read(self.shards[0], lambda file: list(file.keys())))

    def rows(self, name: str, first: int, last: int) -> Tensor:
        """Rows first .. last (exclusive) of a tensor."""
        parts = []
        for shard in self.shards:
            low, high = max(first, shard.first), min(last, shard.last)
            if low < high:
                start, end = low - shard.first, high - shard.first
                parts.append(self._read(shard, lambda f, a=start, b=end: f.get_slice(name)[a:b].clone()))
        if not parts:
            parts = [self._read(self.shards[0], lambda file: file.get_slice(name)[0:0].clone())]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def part(self, name: str, span: tuple[int, int]) -> Tensor:
        """Rows of a tensor that is kept row by row; all of any other."""
        return self.rows(name, *span) if is_by_row(name) else self.value(name)

    def value(self, name: str) -> Tensor:
        """A tensor that is not kept row by row."""
        return self._read(self.shards[0], lambda file: file.get_tensor(name).clone())

    def row_shape(self, name: str) -> tuple[int, ...]:
        """The shape of one row."""
        return tuple(self._read(self.shards[0], lambda file: file.get_slice(name).get_shape()))[1:]

    def full_set(self, averaged: bool = False) -> dict[str, Tensor]:
        """The set, or the average of sets over outer steps: images, labels, classes; a learned rate."""
        prefix = "average." if averaged else ""
        tensors = {name: self.rows(prefix + name, 0, self.num_rows) for name in ("images", "labels")}
        tensors["classes"] = self.rows("classes", 0, self.num_rows)
        rate = f"{prefix}learning_rate"
        return tensors | ({"learning_rate": self.value(rate)} if rate in self.names() else {})

    def _read(self, shard: Shard, take: Any) -> Any:
        path = self.folder / shard.file
        try:
            with safe_open(path, framework="pt") as file:
                return take(file)
        except (SafetensorError, OSError) as error:
            raise IntegrityError(str(path), f"cannot be read: {error}") from None


class Checkpoints:
    """``checkpoint/``: shards, and ``latest.json``: those of the newest step, of the best, and of the start.

    Shards come first, each durable on its own; a checkpoint exists once ``latest.json`` names it.
    """

    def __init__(self, folder: Path, config_digest: str) -> None:
        self.folder, self.config_digest = folder, config_digest
        self.latest = folder / "latest.json"

    def write_shard(self, step: int, part: int, num_parts: int, first: int, tensors: Mapping[str, Tensor]) -> Shard:
        """Write the rows of one rank, from row ``first`` on, and what is not kept row by row."""
        name = f"step-{step:08d}-{part + 1:05d}-of-{num_parts:05d}.safetensors"
        sha256 = write_bytes(self.folder / name, save({n: t.contiguous() for n, t in tensors.items()}))
        return Shard(name, sha256, first, first + len(tensors.get("classes", ())))

    def commit(self, step: int, shards: Mapping[str, Sequence[Shard]], facts: Mapping[str, Any]) -> None:
        """Make ``shards`` (of newest, best and start) the checkpoint; delete what it does not name."""
        listed = {which: [asdict(shard) for shard in shards[which]] for which in KEPT}
        write_json(self.latest, {"step": step, **listed, "config": self.config_digest, **facts})
        named = {shard.file for which in KEPT for shard in shards[which]}
        for path in self.folder.iterdir():
            if (path.suffix == ".safetensors" and path.name not in named) or is_half_written(path.name):
                path.unlink(missing_ok=True)

    def load(self, verify: bool = True) -> dict[str, Any] | None:
        """The record of the checkpoint, with its shards; None without one.

        Raises:
            IntegrityError: the checkpoint is damaged or belongs to another configuration; nothing is changed.
        """
        if not self.latest.exists():
            return None
        fix = f"restore it, or start this run anew with resume=never ({self.folder} is kept aside)"
        try:
            record = read_json(self.latest)
        except IntegrityError as error:
            raise IntegrityError(error.where, error.problem, fix=fix) from None
        if record.get("config") != self.config_digest:
            raise IntegrityError(str(self.latest), "belongs to another configuration", fix=fix)
        try:
            record |= {which: [Shard(**shard) for shard in record[which]] for which in KEPT}
        except (KeyError, TypeError):
            raise IntegrityError(str(self.latest), "names no shards", fix=fix) from None
        for shard in {shard for which in KEPT for shard in record[which]} if verify else ():
            path = self.folder / shard.file
            if not path.exists():
                raise IntegrityError(str(path), "is missing though latest.json names it", fix=fix)
            if sha256_of(path) != shard.sha256:
                raise IntegrityError(str(path), "is damaged (SHA-256 differs)", fix=fix)
        return record

    def adopt(self, folder: Path) -> None:
        """Take over the checkpoint in ``folder``, of a run with other settings; there must be none here yet.

        Raises:
            IntegrityError: the checkpoint in ``folder`` is damaged.
        """
        donor = Checkpoints(folder, str(read_json(folder / self.latest.name).get("config")))
        record = donor.load()
        if record is None:
            raise IntegrityError(str(folder), "holds no checkpoint")
        shards = {which: record.pop(which) for which in KEPT}
        for path in folder.glob("*.safetensors"):
            write_bytes(self.folder / path.name, path.read_bytes())
        self.commit(record.pop("step"), shards, {k: v for k, v in record.items() if k != "config"})

    def saved(self, shards: Sequence[Shard]) -> Saved:
        """What these shards hold."""
        return Saved(self.folder, shards)
