"""Files that are either whole or not there: temporary name, fsync, rename. Standard library only."""

import errno
import hashlib
import json
import os
import stat
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distributed_dd.errors import IntegrityError, MissingInputError, UserError
from distributed_dd.secrecy import values_without_secrets, without_secrets

ELSEWHERE = "choose another place: output=, or experts.storage= for experts"
RESTORE = "restore it or delete it"
MOST_BYTES_OF_JSON = 2**28
OWNER_ONLY = 0o600
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_bytes(path: Path, content: bytes, private: bool = False) -> str:
    """Write ``content`` so that ``path`` is never seen half-written; returns its SHA-256.

    Args:
        private: whether its owner alone may read it.

    Raises:
        UserError: the disk is full, or the place cannot be written; what was there before is intact.
    """
    _write(path, [content], len(content), private)
    return hashlib.sha256(content).hexdigest()


def write_text(path: Path, text: str, private: bool = False) -> None:
    """`write_bytes` of text, without the secrets in it."""
    write_bytes(path, without_secrets(text).encode(), private)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """`write_bytes` of lines, which are made as they are written and may come from the file that they replace."""
    _write(path, (line.encode() for line in lines), None, False)


def _write(path: Path, pieces: Iterable[bytes], num_bytes: int | None, private: bool) -> None:
    # Unique on a shared disk too, where two nodes may have processes of the same number.
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb", opener=_owner_only if private else None) as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        _sync_folder(path.parent)
    except OSError as error:
        _unlink(part)
        raise _not_written(path, num_bytes, error) from None


def append_text(path: Path, text: str, private: bool = False) -> None:
    """Add ``text``, without the secrets in it, to a file; a kill may cut the last line short.

    Args:
        private: whether a file that was not there is for its owner alone.

    Raises:
        UserError: the disk is full, or the file cannot be written.
    """
    try:
        with open(path, "a", opener=_owner_only if private else None) as file:
            file.write(without_secrets(text))
    except OSError as error:
        raise _not_written(path, len(text), error) from None


def is_half_written(name: str) -> bool:
    """Whether a file of this name is what a killed `write_bytes` left."""
    return name.startswith(".") and name.endswith(".part")


def _owner_only(path: str, flags: int) -> int:
    return os.open(path, flags, OWNER_ONLY)


def write_json(path: Path, value: Any, private: bool = False) -> str:
    """Write ``value`` as readable JSON; returns the file's SHA-256."""
    return write_bytes(path, as_json(value), private)


def as_json(value: Any) -> bytes:
    """``value`` as readable JSON, without the secrets in it."""
    return (json.dumps(values_without_secrets(value), indent=2, sort_keys=False) + "\n").encode()


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """The content of a plain file.

    Args:
        most: bytes that are read at most; a larger file is refused before it is opened.

    Raises:
        MissingInputError: there is no such file. IntegrityError: it is no plain file, too large or cannot be read.
    """
    try:
        refuse_irregular(path)
        if most is not None and (size := path.stat().st_size) > most:
            raise IntegrityError(str(path), f"holds {size:,} bytes", allowed=f"at most {most:,}", fix=RESTORE)
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise _not_read(path, error) from None


def refuse_irregular(path: Path) -> None:
    """Refuse what is no plain file: to open a pipe would wait for ever, to read a device never ends.

    Raises:
        MissingInputError: there is no such file. IntegrityError: it is a folder, a pipe, a device, or out of reach.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise _not_read(path, error) from None
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise IntegrityError(str(path), f"is {what}", allowed="a plain file", fix="move it away")


def read_json(path: Path) -> Any:
    """The JSON value in ``path``.

    Raises:
        MissingInputError: there is no such file. IntegrityError: it is not JSON, or no plain file.
    """
    return parsed(read_bytes(path, MOST_BYTES_OF_JSON), str(path))


def parsed(content: bytes, where: str, fix: str = RESTORE) -> Any:
    """The JSON value in ``content``, which lies at ``where``.

    Raises:
        IntegrityError: it is not JSON.
    """
    try:
        return json.loads(content)
    except RecursionError:
        problem = "is nested too deeply"
    except ValueError as error:  # JSON, UTF-8, numbers of too many digits
        problem = f"is damaged: {error}"
    raise IntegrityError(where, problem, fix=fix)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, read in pieces.

    Raises:
        MissingInputError: there is no such file. IntegrityError: it is no plain file, or cannot be read.
    """
    refuse_irregular(path)
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _not_read(path, error) from None


def digest(value: Any) -> str:
    """SHA-256 of a plain value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _not_written(path: Path, num_bytes: int | None, error: OSError) -> UserError:
    if error.errno in FULL:
        room = "" if num_bytes is None else f" for {num_bytes:,} bytes"
        problem = f"no space left{room}; nothing that was there is lost"
        return UserError(str(path), problem, fix="free some space and run the same command again")
    return UserError(str(path), f"cannot be written: {error.strerror or error}", fix=ELSEWHERE)


def _not_read(path: Path, error: Exception) -> UserError:
    if isinstance(error, FileNotFoundError):
        return MissingInputError(str(path), "there is no such file")
    reason = getattr(error, "strerror", None) or error
    return IntegrityError(str(path), f"cannot be read: {reason}", fix=RESTORE)


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # its folder cannot be reached either; the first error says so


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
