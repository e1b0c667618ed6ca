"""What takes long to make from data, kept once per machine: checksummed, memory-mapped when read.

The folder is ``$DISTRIBUTED_DD_CACHE``, or ``~/.cache/distributed_dd``. It may be deleted at any time.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from distributed_dd.data.reading import check_regular, read_whole
from distributed_dd.durable import digest, sha256_of, write_bytes, write_json
from distributed_dd.errors import UserError
from distributed_dd.places import cache_folder

VERSION = 2
LARGEST_RECORD = 2**28
Say = Callable[[str], None]
Entry = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors by name, and plain facts about them."""


def silent(text: str) -> None:
    """Say nothing: for callers without a person who reads along."""


def cached(what: str, identity: dict[str, Any], make: Callable[[], Entry], say: Say = silent) -> Entry:
    """What ``make`` returns, from the cache if it was made before for the same ``identity``.

    An entry says what it was made for and has checksums: one that is damaged, or another's under this name, is made
    anew. Where the cache cannot be written, a warning says so and nothing is kept.
    """
    full_identity = digest({"version": VERSION, **identity})
    try:
        path = cache_folder() / f"{full_identity[:24]}.safetensors"
    except UserError as error:
        say(f"warning: {what} cannot be kept: {str(error).splitlines()[0]}")
        return make()
    if (entry := _read(path, full_identity)) is not None:
        return entry
    say(f"{what}, once, into {path}")
    tensors, facts = make()
    try:
        content = save({name: tensor.contiguous() for name, tensor in tensors.items()})
        record = {"identity": full_identity, "sha256": write_bytes(path, content), "facts": facts}
        write_json(path.with_suffix(".json"), {**record, "record_sha256": digest(record)})
    except (UserError, OSError) as error:
        say(f"warning: it cannot be kept: {str(error).splitlines()[0]}")
        return tensors, facts
    return _read(path, full_identity) or (tensors, facts)


def _read(path: Path, full_identity: str) -> Entry | None:
    """The entry, if it is whole and was made for this identity."""
    try:
        values = json.loads(read_whole(path.with_suffix(".json"), LARGEST_RECORD))
        if not isinstance(values, dict) or values.get("identity") != full_identity:
            return None
        check = values.pop("record_sha256", None)
        if digest(values) != check:
            return None
        check_regular(path)
        if sha256_of(path) != values["sha256"]:
            return None
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, values["facts"]  # noqa: SIM118
    except (UserError, OSError, SafetensorError, ValueError, KeyError, RecursionError):
        return None
