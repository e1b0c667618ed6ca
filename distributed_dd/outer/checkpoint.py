"""Checkpoints of a distillation: each rank writes the rows it keeps, any number of ranks reads them back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from distributed_dd.durable import is_half_written, read_bytes, sha256_of, write_bytes
from distributed_dd.errors import DivergedError, IntegrityError, MissingInputError
from distributed_dd.learning.tensor_files import is_finite, load_tensors, refuse_not_finite
from distributed_dd.learning.update_rules import is_by_row
from distributed_dd.records import SEAL, owner_of, read_record, write_record

KEPT = ("newest", "best", "start")
KIND = "checkpoint"
LEARNED_RATES = ("learning_rate", "raw_step_rates")
"""What a set may have beside its rows: one rate (), or numbers (N,) whose softplus are the rates of N student steps."""
FORM = "form."


@dataclass(frozen=True)
class Shard:
    """A file with rows first .. last of the set and of everything that is kept row by row."""

    file: str
    sha256: str
    first: int
    last: int


@dataclass(frozen=True)
class Packed:
    """A `Shard` in memory: the name and the content of its file."""

    file: str
    content: bytes
    first: int
    last: int


class Saved:
    """What shards hold, read row by row, so that no process has to hold all of it.

    Names of a set: ``images``, ``labels``, ``classes`` by row, ``learning_rate`` where it is learned; the same
    after ``average.`` and after the slots of update rules, such as ``momentum.``; ``state.`` is the method's
    own, and ``form.`` what was chosen for the form of its images by looking at real ones. A generator has no rows.
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
        """The set, or the average of sets over outer steps: images, labels, classes; targets, learned rates."""
        prefix = "average." if averaged else ""
        tensors = {name: self.rows(prefix + name, 0, self.num_rows) for name in ("images", "labels")}
        targets = f"{prefix}targets"
        tensors |= {"targets": self.rows(targets, 0, self.num_rows)} if targets in self.names() else {}
        tensors["classes"] = self.rows("classes", 0, self.num_rows)
        names = self.names()
        return tensors | {rate: self.value(prefix + rate) for rate in LEARNED_RATES if prefix + rate in names}

    def form_tensors(self) -> dict[str, Tensor]:
        """What was chosen for the form that images are stored in; nothing for most forms."""
        names = sorted(name for name in self.names() if name.startswith(FORM))
        return {name.removeprefix(FORM): self.value(name) for name in names}

    def _read(self, shard: Shard, take: Any) -> Any:
        path = self.folder / shard.file
        try:
            with safe_open(path, framework="pt") as file:
                return take(file)
        except (SafetensorError, OSError) as error:
            raise IntegrityError(str(path), f"cannot be read: {error}") from None


class Checkpoints:
    """``checkpoint/``: shards, ``latest.json``, which names those of the newest step, of the best and of the start,
    and ``previous.json``, the same of the checkpoint before.

    Shards come first, each durable on its own; a checkpoint exists once ``latest.json`` names it.
    """

    def __init__(self, folder: Path, config_digest: str) -> None:
        self.folder, self.config_digest = folder, config_digest
        self.latest, self.previous = folder / "latest.json", folder / "previous.json"

    def write_shard(self, step: int, part: int, num_parts: int, first: int, tensors: Mapping[str, Tensor]) -> Shard:
        """`pack` and `write`."""
        return self.write(self.pack(step, part, num_parts, first, tensors))

    def pack(self, step: int, part: int, num_parts: int, first: int, tensors: Mapping[str, Tensor]) -> Packed:
        """The rows of one rank, from row ``first`` on, and what is not kept row by row, as a file to write.

        Raises:
            DivergedError: a number is not finite; nothing is written, and the checkpoint before stays.
        """
        bad = [name for name, tensor in tensors.items() if not is_finite(tensor)]
        if bad:
            raise DivergedError(
                f"outer step {step}",
                f"{', '.join(sorted(bad))} holds numbers that are not finite; no checkpoint was made of them",
                fix=f"lower the learning rates and momenta in method; the state before is in {self.folder}",
            )
        name = f"step-{step:08d}-{part + 1:05d}-of-{num_parts:05d}.safetensors"
        content = save({n: t.contiguous() for n, t in tensors.items()})
        return Packed(name, content, first, first + len(tensors.get("classes", ())))

    def write(self, packed: Packed) -> Shard:
        """Write a file of a checkpoint, which exists once `commit` names it."""
        return Shard(packed.file, write_bytes(self.folder / packed.file, packed.content), packed.first, packed.last)

    def commit(self, step: int, shards: Mapping[str, Sequence[Shard]], facts: Mapping[str, Any]) -> None:
        """Make ``shards`` (of newest, best and start) the checkpoint, and the one before the one to fall back to.

        What neither of the two names is deleted.
        """
        listed = {which: [asdict(shard) for shard in shards[which]] for which in KEPT}
        named = _files(shards)
        before = self._read(self.latest) if self.latest.exists() else None
        if isinstance(before, dict) and before["step"] < step:
            write_bytes(self.previous, read_bytes(self.latest))
        fallback = self._read(self.previous) if self.previous.exists() else None
        if isinstance(fallback, dict):
            named |= _files(fallback)
        write_record(self.latest, KIND, self.config_digest, {"step": step, **listed, **facts})
        for path in self.folder.iterdir():
            if (path.suffix == ".safetensors" and path.name not in named) or is_half_written(path.name):
                path.unlink(missing_ok=True)

    @property
    def exist(self) -> bool:
        """Whether there is a checkpoint, or a damaged one."""
        return self.latest.exists() or self.previous.exists()

    def load(self, verify: bool = True) -> dict[str, Any] | None:
        """The record of the newest checkpoint, with its shards; None without one.

        Raises:
            IntegrityError: it is damaged or belongs to another configuration; nothing is changed.
        """
        if not self.latest.exists():
            return None
        record = self._read(self.latest)
        if isinstance(record, IntegrityError):
            raise record
        if verify:
            self._verify(record)
        return record

    def recover(self) -> tuple[dict[str, Any] | None, str]:
        """`load`; where the newest checkpoint is damaged, the one before it takes its place.

        Returns the record and, where that happened, a line for a person. What is damaged is kept under another name.

        Raises:
            IntegrityError: both are damaged, or belong to another configuration; nothing is changed.
        """
        try:
            record = self.load()
            if record is not None or not self.previous.exists():
                return record, ""
            reason = f"{self.latest} is missing"
        except (IntegrityError, MissingInputError) as error:
            if not self.previous.exists():
                raise
            reason = f"{error.where} {error.problem}"
        before = self._read(self.previous)
        if isinstance(before, IntegrityError):
            raise before
        self._verify(before)
        self._set_aside(keep=_files(before))
        write_bytes(self.latest, read_bytes(self.previous))
        return before, f"warning: {reason}; going on from the checkpoint before it, of step {before['step']}"

    def _set_aside(self, keep: set[str]) -> None:
        """Rename the newest record and its shards, so that neither is read again nor deleted."""
        record = self._read(self.latest) if self.latest.exists() else None
        files = _files(record) - keep if isinstance(record, dict) else set()
        for path in [self.latest, *(self.folder / name for name in files)]:
            if path.exists():
                path.replace(path.with_name(f"{path.name}.damaged"))

    def _read(self, path: Path) -> Any:
        """The record in ``path`` with its shards, or the error that says why it is none."""
        fix = f"restore it, or start this run anew with resume=never ({self.folder} is kept aside)"
        try:
            record = read_record(path, KIND, owner=self.config_digest, fix=fix, needs={"step": int})
            return record | {which: [Shard(**shard) for shard in record[which]] for which in KEPT}
        except (KeyError, TypeError):
            return IntegrityError(str(path), "names no shards", fix=fix)
        except MissingInputError as error:
            return IntegrityError(error.where, error.problem, fix=fix)
        except IntegrityError as error:
            return error

    def _verify(self, record: Mapping[str, Any]) -> None:
        fix = f"restore it, or start this run anew with resume=never ({self.folder} is kept aside)"
        for shard in dict.fromkeys(shard for which in KEPT for shard in record[which]):
            path = self.folder / shard.file
            if not path.exists():
                raise IntegrityError(str(path), "is missing though a checkpoint names it", fix=fix)
            if sha256_of(path) != shard.sha256:
                raise IntegrityError(str(path), "is damaged (SHA-256 differs)", fix=fix)
            refuse_not_finite(load_tensors(path), str(path))

    def adopt(self, folder: Path) -> None:
        """Take over the checkpoint in ``folder``, of a run with other settings; there must be none here yet.

        Raises:
            IntegrityError: there is no checkpoint in ``folder``, or it is damaged.
        """
        donor_latest = folder / self.latest.name
        donor = Checkpoints(folder, owner_of(read_record(donor_latest, KIND)) if donor_latest.exists() else "")
        record = donor.load()
        if record is None:
            raise IntegrityError(str(folder), "holds no checkpoint")
        shards = {which: record.pop(which) for which in KEPT}
        for name in sorted(_files(shards)):
            write_bytes(self.folder / name, read_bytes(folder / name))
        facts = {name: value for name, value in record.items() if name != SEAL}
        self.commit(facts.pop("step"), shards, facts | {"scores": {}, "metrics_sha256": ""})  # the donor's

    def saved(self, shards: Sequence[Shard]) -> Saved:
        """What these shards hold."""
        return Saved(self.folder, shards)


def _files(shards: Mapping[str, Any]) -> set[str]:
    """Names of the files that ``shards`` of newest, best and start lie in."""
    return {shard.file for which in KEPT for shard in shards[which]}
