"""Copies of a run folder's files at a second place, which outlives the cluster that makes them."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from distributed_dd.durable import is_half_written, parsed, read_bytes, write_bytes
from distributed_dd.errors import IntegrityError, MissingInputError, UserError
from distributed_dd.locks import FILES, locked, locked_when_free
from distributed_dd.outer.run_folder import free_name
from distributed_dd.trajectories.folder import Folder, folder_at

# Copied last and in this order, as they name other files: a copy that was cut short is an older state, never a
# broken one, and one with the report is complete.
LAST = ("previous.json", "latest.json", "manifest.json", "report.json")
SECONDS_BEFORE_TRIES = (0.0, 1.0, 5.0)
NOTHING = (False, False, -1, False)

Standing = tuple[bool, bool, int, bool]
"""How far a run folder is: has a report, has a result, outer step of the checkpoint (-1: none), has anything."""


class Copies:
    """Keeps a copy of ``folder`` at ``place``, a folder or a URI; a failure is reported and stops nothing.

    Args:
        deep: whether the folders in it are copied too.
    """

    def __init__(self, folder: Path, place: str, say: Callable[[str], None], deep: bool = True) -> None:
        self.folder, self.place, self.say, self.deep = folder, place.rstrip("/"), say, deep
        self._copied: dict[Path, tuple[int, int]] = {}

    def keep(self) -> bool:
        """Copy what changed since the last time; whether all of it could be."""
        problem = ""
        for seconds in SECONDS_BEFORE_TRIES:
            time.sleep(seconds)
            try:
                self._copy()
                return True
            except (UserError, OSError) as error:
                problem = str(error).splitlines()[0]
        self.say(f"warning: results could not be copied, the run goes on and tries again later: {problem}")
        return False

    def begin(self, anew: bool = False) -> None:
        """Copy what is there already.

        Args:
            anew: the run was begun again on purpose: a copy of the former one is moved aside.

        Raises:
            UserError: the second place cannot be written, or holds a copy that is further; a run finds out before it
                works for days.
        """
        if anew and _standing(self.place) != NOTHING:
            there, name = self.place.rsplit("/", 1)
            aside = free_name(name, folder_at(there).names())
            folder_at(there).set_aside(name, aside)
            self.say(f"the copy of the previous run was kept as {there}/{aside}")
        self._copy()

    def complete(self) -> bool:
        """Copy a finished run unless its report, which comes last, is there; whether the copy is complete."""
        try:
            if folder_at(self.place).read(LAST[-1]) == read_bytes(self.folder / LAST[-1]):
                return True
        except (UserError, OSError):
            pass  # not there, or out of reach: `keep` says so
        return self.keep()

    def bring(self) -> bool:
        """Fetch everything, where the copy is further than this folder; whether it was.

        It arrives under another name and takes its place whole, so a kill on the way leaves what was here before. A
        folder that was here is kept aside.
        """
        try:
            if not self._is_further():
                return False
        except UserError as error:
            if not self.folder.exists():
                raise
            self.say(f"warning: {self.place} cannot be asked for a copy: {str(error).splitlines()[0]}")
            return False
        arriving = self.folder.with_name(f".{self.folder.name}.arriving")
        with locked_when_free(arriving, "copy", self.say):
            if not self._is_further():
                return False  # somebody else fetched it meanwhile
            fetched = arriving / "fetched"
            shutil.rmtree(fetched, ignore_errors=True)
            self._fetch(self.place, fetched)
            if self.folder.exists():
                with locked(self.folder, "run"):
                    aside = self.folder.with_name(free_name(self.folder.name, set(os.listdir(self.folder.parent))))
                    os.replace(self.folder, aside)
                self.say(f"the copy in {self.place} is further: what was here is kept as {aside}")
            os.replace(fetched, self.folder)
        shutil.rmtree(arriving, ignore_errors=True)
        return True

    def _is_further(self) -> bool:
        return _standing(self.place) > _standing(self.folder)

    def _fetch(self, place: str, into: Path) -> None:
        there = folder_at(place)
        for name in sorted(there.names()):
            if "." not in name:  # folders: every file of a run has an ending
                self._fetch(f"{place}/{name}", into / name)
            elif not is_half_written(name) and name not in FILES:
                write_bytes(into / name, there.read(name))

    def _copy(self) -> None:
        if self.deep and self._is_further():
            raise UserError(
                self.place,
                "holds a copy of this run that is further, which is not replaced",
                fix="run it where it is further, or resume=never; the next start here fetches the copy",
            )
        now = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in self._files()}
        changed = [path for path, state in now.items() if self._copied.get(path) != state]
        for path in sorted(changed, key=lambda path: (_turn(path.name), path)):
            self._there(path).write(path.name, read_bytes(path))
            self._copied[path] = now[path]
        for path in [*self._copied]:
            if path not in now:
                self._there(path).remove(path.name)
                del self._copied[path]
        self._remove_old_shards()

    def _remove_old_shards(self) -> None:
        """Remove shards of checkpoints that are no more, also those that another process copied."""
        here = self.folder / "checkpoint"
        if self.deep and here.is_dir():
            there = folder_at(f"{self.place}/checkpoint")
            for name in there.names() - set(os.listdir(here)):
                if name.endswith(".safetensors"):
                    there.remove(name)

    def _files(self) -> Iterator[Path]:
        for path in self.folder.rglob("*") if self.deep else self.folder.glob("*"):
            if path.is_file() and path.name not in FILES and not is_half_written(path.name):
                yield path

    def _there(self, path: Path) -> Folder:
        return folder_at(f"{self.place}/{path.parent.relative_to(self.folder)}".removesuffix("/."))


def _turn(name: str) -> int:
    return LAST.index(name) if name in LAST else -1


def _standing(place: str | Path) -> Standing:
    """How far the run folder at ``place`` is."""
    names = folder_at(place).names()
    has_result = "distilled" in names and "manifest.json" in folder_at(f"{place}/distilled").names()
    step = _step(f"{place}/checkpoint") if "checkpoint" in names else -1
    return "report.json" in names, has_result, step, bool(names - {*FILES})


def _step(place: str) -> int:
    """The outer step of a checkpoint; -1 where there is none, or none that can be read."""
    try:
        record: Any = parsed(folder_at(place).read("latest.json"), place)
    except (MissingInputError, IntegrityError):
        return -1
    step = record.get("step") if isinstance(record, dict) else None
    return step if isinstance(step, int) else -1
