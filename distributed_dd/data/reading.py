"""Files that people bring: opened only if they are files, read only as far as this machine's memory goes.

Whatever a person or a stranger's data names is opened through here. A pipe would wait for ever and a device never
end; links may lead nowhere or in circles.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import BufferedIOBase, BufferedReader
from pathlib import Path

import psutil

from distributed_dd.errors import IntegrityError, MissingInputError
from distributed_dd.places import displayable

LONGEST_SHOWN = 160
KINDS = (
    (stat.S_ISDIR, "is a folder"),
    (stat.S_ISFIFO, "is a pipe"),
    (stat.S_ISSOCK, "is a socket"),
    (stat.S_ISCHR, "is a device"),
    (stat.S_ISBLK, "is a device"),
)


def open_regular(path: Path, allowed: str = "") -> BufferedReader:
    """``path`` opened for reading, which never waits.

    Raises:
        MissingInputError: it is not there, cannot be opened, or is no regular file; ``allowed`` says what should be.
    """
    try:
        # Not blocking: or a pipe would wait for somebody who writes.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise MissingInputError(place_of(path), _reason(path, error), allowed=allowed) from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        what = next((words for is_kind, words in KINDS if is_kind(mode)), "is no regular file")
        raise MissingInputError(place_of(path), f"{what}, not a file", allowed=allowed)
    return os.fdopen(descriptor, "rb")


def check_regular(path: Path, allowed: str = "") -> int:
    """Refuse what `open_regular` refuses, for libraries that open the path themselves; returns its size in bytes."""
    with open_regular(path, allowed) as file:
        return os.fstat(file.fileno()).st_size


def read_whole(path: Path, most_bytes: int, allowed: str = "") -> bytes:
    """The content of a file of at most ``most_bytes`` bytes.

    Raises:
        MissingInputError: as `open_regular`. IntegrityError: it is larger, or cannot be read.
    """
    with open_regular(path, allowed) as file:
        return read_at_most(file, most_bytes, path)


def read_at_most(file: BufferedIOBase, most_bytes: int, where: Path) -> bytes:
    """All that is left in ``file``, which may be unpacked while it is read.

    Raises:
        IntegrityError: that is more than ``most_bytes`` bytes, or cannot be read.
    """
    try:
        content = file.read(most_bytes + 1)
    except OSError as error:
        raise IntegrityError(place_of(where), f"cannot be read: {error.strerror or error}") from None
    if len(content) > most_bytes:
        raise IntegrityError(place_of(where), "is too large", allowed=f"at most {most_bytes:,} bytes")
    return content


def read_text(path: Path, most_bytes: int = 2**26) -> str:
    """The text of a file in UTF-8.

    Raises:
        MissingInputError, IntegrityError: as `read_whole`, or it is no text.
    """
    try:
        return read_whole(path, most_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise IntegrityError(place_of(path), f"is no text in UTF-8: {error.reason} at byte {error.start}") from None


def check_memory(where: str, num_bytes: int, what: str = "its arrays") -> None:
    """Refuse what this machine has no memory for, before it is asked for.

    Raises:
        IntegrityError: ``num_bytes`` is more than is left.
    """
    if num_bytes > (left := memory_left()):
        problem = f"{what} would take {num_bytes / 2**30:,.1f} GiB of memory"
        raise IntegrityError(where, problem, allowed=f"{left / 2**30:,.1f} GiB, which are left")


def memory_left() -> int:
    """Bytes of memory that can be had: this machine's, or what is left of a container's limit."""
    left = psutil.virtual_memory().available
    with suppress(OSError, ValueError, KeyError):  # no container, or one without a limit
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        kinds = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        left = min(left, max(0, limit - used + int(kinds["inactive_file"])))
    return left


def files_below(folder: Path) -> Iterator[Path]:
    """Everything below ``folder`` that is no folder; links to folders are followed.

    Each folder is read once however many links lead to it, so a circle of links ends.

    Raises:
        IntegrityError: a folder cannot be listed.
    """
    yield from _below(folder, set())


def _below(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            # Asked by path: an entry raises for links in a circle.
            listed = sorted((entry.is_symlink(), entry.name, os.path.isdir(entry.path)) for entry in entries)
    except OSError as error:
        raise IntegrityError(place_of(folder), f"cannot be listed: {error.strerror}") from None
    for _, name, is_folder in listed:
        if is_folder:
            yield from _below(folder / name, seen)
        else:
            yield folder / name


def place_of(path: Path) -> str:
    """Where a file lies, for a message."""
    return displayable(str(path))


def shown(names: Sequence[str], most: int = 10) -> str:
    """Some names that a stranger chose, on one line and cut, for a message."""
    cut = [name if len(name) <= LONGEST_SHOWN else f"{name[:LONGEST_SHOWN]}.." for name in names[:most]]
    lines = ", ".join("".join(c if c.isprintable() else "?" for c in displayable(name)) for name in cut)
    return lines + (f" and {len(names) - most} more" if len(names) > most else "")


def _reason(path: Path, error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "is a link that leads nowhere" if os.path.islink(path) else "there is no such file"
    return f"cannot be opened: {getattr(error, 'strerror', None) or error}"
