"""What takes long to make from data, kept once per machine: checksummed, memory-mapped when read.

The folder is ``$DISTRIBUTED_DD_CACHE``, or ``~/.cache/distributed_dd``. It may be deleted at any time.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from distributed_dd.durable import digest, read_json, sha256_of, write_bytes, write_json
from distributed_dd.errors import UserError

VERSION = 1
Say = Callable[[str], None]
Entry = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors by name, and plain facts about them."""


def silent(text: str) -> None:
    """Say nothing: for callers without a person who reads along."""


def cache_folder() -> Path:
    """Where this machine keeps what can be made or fetched again."""
    return Path(os.environ.get("DISTRIBUTED_DD_CACHE") or Path.home() / ".cache" / "distributed_dd")


def cached(what: str, identity: dict[str, Any], make: Callable[[], Entry], say: Say = silent) -> Entry:
    """What ``make`` returns, from the cache if it was made before for the same ``identity``.

    A damaged entry is made anew. Where the cache cannot be written, a warning says so and nothing is kept.
    """
    path = cache_folder() / f"{digest({'version': VERSION, **identity})[:24]}.safetensors"
    if (entry := _read(path)) is not None:
        return entry
    say(f"{what}, once, into {path}")
    tensors, facts = make()
    try:
        content = save({name: tensor.contiguous() for name, tensor in tensors.items()})
        write_json(path.with_suffix(".json"), {"sha256": write_bytes(path, content), "facts": facts})
    except (UserError, OSError) as error:
        say(f"warning: it cannot be kept: {str(error).splitlines()[0]}")
        return tensors, facts
    return _read(path) or (tensors, facts)


def fingerprint(files: Iterable[Path]) -> str:
    """A digest of names, sizes and times of modification: what changes when a file does."""
    return digest([[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in sorted(files)])


def _read(path: Path) -> Entry | None:
    record = path.with_suffix(".json")
    if not (path.exists() and record.exists()):
        return None
    try:
        values = read_json(record)
        if sha256_of(path) != values["sha256"]:
            return None
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, values["facts"]  # noqa: SIM118
    except (UserError, OSError, SafetensorError, KeyError):
        return None
