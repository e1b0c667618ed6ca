"""Decoded data sets, kept once per machine: checksummed, memory-mapped when read.

The folder is ``$DISTRIBUTED_DD_CACHE``, or ``~/.cache/distributed_dd``. It may be deleted at any time.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from distributed_dd.data.decoded import Decoded
from distributed_dd.data.splits import Images
from distributed_dd.durable import digest, read_json, sha256_of, write_bytes, write_json
from distributed_dd.errors import UserError

VERSION = 1
Say = Callable[[str], None]


def silent(text: str) -> None:
    """Tells nobody."""


def cached(identity: dict[str, Any], decode: Callable[[], Decoded], say: Say = silent) -> Decoded:
    """What ``decode`` returns, from the cache if the same ``identity`` was decoded before.

    A damaged entry is decoded anew; a cache that cannot be written is done without, and said.
    """
    folder = Path(os.environ.get("DISTRIBUTED_DD_CACHE") or Path.home() / ".cache" / "distributed_dd")
    path = folder / f"{digest({'version': VERSION, **identity})[:24]}.safetensors"
    if (found := _read(path)) is not None:
        return found
    say(f"decoding {identity['name']} once into {path}")
    decoded = decode()
    try:
        _write(path, decoded)
    except (UserError, OSError) as error:
        say(f"warning: the decoded images are not kept: {str(error).splitlines()[0]}")
        return decoded
    return _read(path) or decoded


def fingerprint(files: Iterable[Path]) -> str:
    """A digest of names, sizes and times of modification: what changes when a file does."""
    return digest([[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in sorted(files)])


def _write(path: Path, decoded: Decoded) -> None:
    tensors = {
        "train_images": decoded.train.images, "train_targets": decoded.train.targets,
        "test_images": decoded.test.images, "test_targets": decoded.test.targets,
    }  # fmt: skip
    sha256 = write_bytes(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}))
    facts = {"sha256": sha256, "class_names": decoded.class_names, "notes": decoded.notes}
    write_json(path.with_suffix(".json"), facts)


def _read(path: Path) -> Decoded | None:
    record = path.with_suffix(".json")
    if not (path.exists() and record.exists()):
        return None
    try:
        facts = read_json(record)
        if sha256_of(path) != facts["sha256"]:
            return None
        with safe_open(path, framework="pt") as file:
            train = Images(file.get_tensor("train_images"), file.get_tensor("train_targets"))
            test = Images(file.get_tensor("test_images"), file.get_tensor("test_targets"))
    except (UserError, OSError, SafetensorError, KeyError):
        return None
    return Decoded(train, test, tuple(facts["class_names"]), tuple(facts["notes"]))
