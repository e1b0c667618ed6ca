"""Folders that one process at a time works in. The lock goes with the process, however it ends."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import AcquireReturnProxy, FileLock, SoftFileLock, Timeout

from distributed_dd.durable import ELSEWHERE, FULL
from distributed_dd.errors import LockedError, UserError

NAME = ".lock"
HOLDER = f"{NAME}.holder"
FILES = (NAME, HOLDER)
"""Of a folder that is held, or was."""
SECONDS_BETWEEN_TRIES = 1.0
MOST_FOLDERS = 100
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
"""What file systems without locks answer, such as Lustre without ``-o flock`` or NFS without its lock daemon."""


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
    lock = folder / NAME
    try:
        return _taken_in(folder, lock, -1 if wait else 0)
    except Timeout:
        raise LockedError(
            str(folder),
            f"another process is working on this {what}{_holder(lock)}",
            fix="wait for it or stop it" + (f"; if it is gone, delete {_soft(lock)}" if _soft(lock).exists() else ""),
        ) from None
    except OSError as error:
        fix = ELSEWHERE if error.errno in (errno.EACCES, errno.EROFS, *FULL) else f"move {lock} away"
        raise UserError(str(lock), f"cannot be locked: {error.strerror or error}", fix=fix) from None


def _taken_in(folder: Path, lock: Path, seconds: float) -> AcquireReturnProxy:
    """The lock in a folder that is made; made again where whoever had the lock removed the folder."""
    for _ in range(MOST_FOLDERS - 1):
        _make(folder)
        with suppress(FileNotFoundError):
            return _taken(lock, seconds)
    _make(folder)
    return _taken(lock, seconds)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(str(folder), f"cannot be written: {error.strerror}", fix=ELSEWHERE) from None


def _taken(lock: Path, seconds: float) -> AcquireReturnProxy:
    """The lock, by the operating system or, on a disk without locks, by a file that names its holder.

    The library tells such a file of a process that died on this machine from one that is held.
    """
    try:
        return FileLock(lock, fallback_to_soft=False).acquire(timeout=seconds, poll_interval=SECONDS_BETWEEN_TRIES)
    except NotImplementedError:
        pass  # as the library tells of some such disks
    except OSError as error:
        if isinstance(error, Timeout) or error.errno not in NO_LOCKS:
            raise
    return SoftFileLock(_soft(lock)).acquire(timeout=seconds, poll_interval=SECONDS_BETWEEN_TRIES)


def _soft(lock: Path) -> Path:
    # Of another name: the attempt at a lock leaves an empty file, which would look like somebody's.
    return lock.with_name(HOLDER)


def _holder(lock: Path) -> str:
    """Who has a lock that is a file, in words; empty where the operating system keeps it."""
    try:
        process, host, *_ = _soft(lock).read_text().split()
    except (OSError, ValueError):
        return ""
    return f" (process {process} on {host})" if process.isdigit() else ""
