"""What files hold, as one digest: a picture that was replaced is seen, whatever its size and its times are.

Contents are read every time, in so far as that is soon done. Of more than `FEW` files or `SOON` bytes, a checksum is
taken from an index if nothing about it has changed: its place, size, inode, time of modification, and time of its last
change as the system keeps it (ctime), which ``touch -d``, ``cp -p`` and ``rsync -t`` cannot set. Trusted, then, is the
clock of the disk's machine, and for disks that keep no such time, size and time of modification.
"""

import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from hashlib import file_digest
from pathlib import Path

from distributed_dd.data.reading import open_regular, place_of, read_whole
from distributed_dd.durable import digest, write_json
from distributed_dd.errors import IntegrityError, UserError
from distributed_dd.places import cache_folder

FEW, SOON = 20_000, 2**31
SETTLED_SECONDS = 10
"""A file that was changed so shortly ago might change again without its time being another."""
LARGEST_INDEX = 2**30
# Place below the root -> what a change of the file would change, and its SHA-256.
Index = dict[str, list]
State = list[int]
UNREADABLE = "unreadable"


def fingerprint(files: Sequence[Path], root: Path) -> str:
    """A digest of the contents of ``files`` and their places below ``root``; unreadable files count as such."""
    files, began = sorted(files), time.time()
    states = list(states_of(files).values())
    names = [os.path.relpath(file, root) for file in files]
    many = len(files) > FEW or sum(state[0] for state in states) > SOON
    index_file = _index_file(root) if many else None
    index = _read_index(index_file)
    with ThreadPoolExecutor() as pool:  # hashing and reading release the interpreter's lock
        checksums = list(pool.map(partial(_checksum, index), files, names, states))
    if index_file:
        settled = {
            name: [state, checksum]
            for name, state, checksum in zip(names, states, checksums, strict=True)
            if began - max(state[1:3]) / 1e9 > SETTLED_SECONDS and checksum != UNREADABLE
        }
        with suppress(UserError, OSError):  # a cache that cannot be written is done without
            write_json(index_file, settled)
    return digest(list(zip(names, checksums, strict=True)))


def states_of(files: Sequence[Path]) -> dict[Path, State]:
    """Size, times of modification and change, inode and device of each file; zeros where it is not there."""
    return {file: _state(file) for file in files}


def check_unchanged(states: dict[Path, State]) -> None:
    """Refuse what was made from files while one of them changed: it may be of two states.

    Raises:
        IntegrityError: a file is not as it was.
    """
    for file, state in states.items():
        if _state(file) != state:
            raise IntegrityError(place_of(file), "changed while it was read", fix="run the same command again")


def _state(file: Path) -> State:
    try:
        status = file.stat()
    except OSError:
        return [0] * 5
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]


def _checksum(index: Index, file: Path, name: str, state: State) -> str:
    known = index.get(name)
    if isinstance(known, list) and len(known) == 2 and known[0] == state and isinstance(known[1], str):
        return known[1]
    try:
        with open_regular(file) as content:
            return file_digest(content, "sha256").hexdigest()
    except (UserError, OSError):
        return UNREADABLE


def _index_file(root: Path) -> Path | None:
    with suppress(UserError):
        return cache_folder() / f"files-{digest(str(root.resolve()))[:24]}.json"
    return None


def _read_index(file: Path | None) -> Index:
    if file is not None:
        with suppress(UserError, ValueError, RecursionError):
            index = json.loads(read_whole(file, LARGEST_INDEX))
            return index if isinstance(index, dict) else {}
    return {}
