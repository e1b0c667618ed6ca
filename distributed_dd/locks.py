"""Folders that one process at a time works in. The lock goes with the process, however it ends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import AcquireReturnProxy, FileLock, Timeout

from distributed_dd.durable import ELSEWHERE
from distributed_dd.errors import LockedError, UserError

NAME = ".lock"
SECONDS_BETWEEN_TRIES = 1.0


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Hold ``folder`` for this process.

    Raises:
        LockedError: another process holds it.
    """
    with _lock_of(folder, what):
        yield


@contextmanager
def locked_when_free(folder: Path, what: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hold ``folder`` once whoever has it lets go; a person is told that it waits."""
    try:
        lock = _lock_of(folder, what)
    except LockedError:
        say(f"waiting for the process that works in {folder}")
        lock = _lock_of(folder, what, wait=True)
    with lock:
        yield


def _lock_of(folder: Path, what: str, wait: bool = False) -> AcquireReturnProxy:
    """The folder's lock, taken: leaving it as a context lets go."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / NAME).acquire(timeout=-1 if wait else 0, poll_interval=SECONDS_BETWEEN_TRIES)
    except Timeout:
        raise LockedError(
            str(folder), f"another process is working on this {what}", fix="wait for it or stop it"
        ) from None
    except OSError as error:
        raise UserError(str(folder), f"cannot be written: {error.strerror}", fix=ELSEWHERE) from None
