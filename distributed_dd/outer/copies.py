"""Copies of a run folder's files at a second place, which outlives the cluster that makes them."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from distributed_dd.durable import is_half_written, write_bytes
from distributed_dd.errors import UserError
from distributed_dd.trajectories.folder import folder_at

# Copied last, as they name other files: a copy that was cut short is an older state, never a broken one.
LAST = ("latest.json", "manifest.json", "report.json")
SECONDS_BEFORE_TRIES = (0.0, 1.0, 5.0)
NOT_COPIED = (".lock",)


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

    def begin(self) -> None:
        """Copy what is there already.

        Raises:
            UserError: the second place cannot be written; a run finds out before it works for days.
        """
        self._copy()

    def bring(self) -> bool:
        """Fetch everything, where this folder is not there yet; whether there was anything."""
        if self.folder.exists():
            return False
        return self._bring("")

    def _bring(self, below: str) -> bool:
        there = folder_at(f"{self.place}/{below}".rstrip("/"))
        fetched = False
        for name in sorted(there.names(), key=lambda name: name in LAST):
            path = self.folder / below / name
            if "." not in name:  # folders: every file of a run has an ending
                fetched |= self._bring(f"{below}/{name}".lstrip("/"))
            elif not is_half_written(name):
                write_bytes(path, there.read(name))
                fetched = True
        return fetched

    def _copy(self) -> None:
        now = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in self._files()}
        changed = [path for path, state in now.items() if self._copied.get(path) != state]
        for path in sorted(changed, key=lambda path: (path.name in LAST, path)):
            self._there(path).write(path.name, path.read_bytes())
            self._copied[path] = now[path]
        for path in [*self._copied]:
            if path not in now:
                self._there(path).remove(path.name)
                del self._copied[path]

    def _files(self) -> Iterator[Path]:
        for path in self.folder.rglob("*") if self.deep else self.folder.glob("*"):
            if path.is_file() and path.name not in NOT_COPIED and not is_half_written(path.name):
                yield path

    def _there(self, path: Path):
        return folder_at(f"{self.place}/{path.parent.relative_to(self.folder)}".removesuffix("/."))
