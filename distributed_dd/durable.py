"""Files that are either whole or not there: temporary name, fsync, rename. Standard library only."""

import errno
import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any

from distributed_dd.errors import IntegrityError, MissingInputError, UserError

ELSEWHERE = "choose another place: output=, or experts.storage= for experts"


def write_bytes(path: Path, content: bytes) -> str:
    """Write ``content`` so that ``path`` is never seen half-written; returns its SHA-256.

    Raises:
        UserError: the disk is full; what was there before is intact.
    """
    # Unique on a shared disk too, where two nodes may have processes of the same number.
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        _sync_folder(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            problem = f"no space left for {len(content):,} bytes; nothing that was there is lost"
            raise UserError(str(path), problem, fix="free some space and run the same command again") from None
        if isinstance(error, PermissionError | NotADirectoryError | FileExistsError):
            raise UserError(str(path), f"cannot be written: {error.strerror}", fix=ELSEWHERE) from None
        raise
    return hashlib.sha256(content).hexdigest()


def is_half_written(name: str) -> bool:
    """Whether a file of this name is what a killed `write_bytes` left."""
    return name.startswith(".") and name.endswith(".part")


def write_json(path: Path, value: Any) -> str:
    """Write ``value`` as readable JSON; returns the file's SHA-256."""
    return write_bytes(path, (json.dumps(value, indent=2, sort_keys=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The JSON value in ``path``.

    Raises:
        MissingInputError: there is no such file. IntegrityError: it is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise MissingInputError(str(path), "there is no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise IntegrityError(str(path), f"is damaged: {error}", fix="restore it or delete it") from None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of a plain value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
