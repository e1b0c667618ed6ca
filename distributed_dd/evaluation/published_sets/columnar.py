"""Parquet and arrow files as tensors: read in a child process, within limits, as the reader of ``.pt`` files is.

Every column is one tensor; pictures are their files' bytes, one after the other, and where each begins.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from distributed_dd.data.confined import write_confined
from distributed_dd.evaluation.published_sets import columns as names

MOST_ROWS, MOST_COLUMNS, MOST_LEVELS, BATCH = 10_000_000, 1_000, 3, 256
PARQUET = b"PAR1"
EXTRA = (names.SOFT, names.VALUES, names.TOP_CLASSES, names.TOP_PROBABILITIES)


def read(path: str) -> dict[str, Tensor]:
    """The columns that sets have, and facts as JSON.

    Raises:
        ValueError: a column is not of one kind of numbers or pictures.
    """
    schema, batches = _opened(path)
    facts: dict[str, Any] = {"columns": [str(name) for name in schema.names[:MOST_COLUMNS]]}
    missing = [name for name in (names.IMAGE, names.LABEL) if name not in schema.names]
    if missing or len(schema.names) > MOST_COLUMNS or len(set(schema.names)) < len(schema.names):
        facts["problem"] = f"has no column {' and no '.join(missing)}" if missing else "has too many columns, or twins"
        return _with(facts, {})
    parts: dict[str, list[Tensor]] = {}
    ends, num_rows = [0], 0
    for batch in batches:
        batch.validate(full=True)
        num_rows += batch.num_rows
        if num_rows > MOST_ROWS:
            raise ValueError(f"has more than {MOST_ROWS:,} rows")
        for name in (names.IMAGE, names.LABEL, *EXTRA):
            if name not in schema.names:
                continue
            column = _plain(batch.column(schema.names.index(name)), name)
            if name == names.IMAGE and (files := _picture_files(column)) is not None:
                for content in files:
                    parts.setdefault(name, []).append(_bytes(content))
                    ends.append(ends[-1] + len(content))
            else:
                parts.setdefault(name, []).append(_numbers(column, name))
    if not num_rows:
        raise ValueError("has no rows")
    tensors = {name: _joined(own, name) for name, own in parts.items()}
    if len(ends) > 1:
        tensors[names.OFFSETS] = torch.tensor(ends)
    facts |= {"class_names": _class_names(schema), "own": _own(schema)}
    label = tensors[names.LABEL]
    if label.ndim != 1 or label.is_floating_point():
        facts["problem"] = f"{names.LABEL} is no column of whole numbers"
        return _with(facts, {})
    return _with(facts, {**tensors, names.LABEL: label.long()})


def _opened(path: str) -> tuple[Any, Iterator[Any]]:
    """The schema of a file, and its rows a few at a time."""
    import pyarrow

    with open(path, "rb") as file:  # by content: in the hub's cache names lead to files without an ending
        is_parquet = file.read(len(PARQUET)) == PARQUET
    if is_parquet:
        from pyarrow import parquet

        table = parquet.ParquetFile(path)
        schema = table.schema_arrow
        wanted = [name for name in (names.IMAGE, names.LABEL, *EXTRA) if name in schema.names]
        kept = pyarrow.schema([schema.field(name) for name in wanted], schema.metadata)
        if names.IMAGE not in wanted or names.LABEL not in wanted:
            return schema, iter(())
        return kept, table.iter_batches(batch_size=BATCH, columns=wanted, use_threads=False)
    source = pyarrow.memory_map(path)
    try:
        stream = pyarrow.ipc.open_stream(source)
        return stream.schema, iter(stream)
    except pyarrow.ArrowInvalid:
        random = pyarrow.ipc.open_file(source)
        return random.schema, (random.get_batch(number) for number in range(random.num_record_batches))


def _plain(column: Any, name: str) -> Any:
    """A column without wrappers of types and without dictionaries; a value that is missing is refused."""
    import pyarrow

    if isinstance(column.type, pyarrow.BaseExtensionType):
        column = column.storage
    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.null_count:
        raise ValueError(f"{name} has {column.null_count} rows without a value")
    return column


def _picture_files(column: Any) -> list[bytes] | None:
    """The files' bytes of a column of pictures; None for another column."""
    import pyarrow

    if pyarrow.types.is_struct(column.type):
        fields = [column.type.field(number).name for number in range(column.type.num_fields)]
        if "bytes" not in fields:
            raise ValueError(f"{names.IMAGE} is a group of {', '.join(fields[:5])}, without bytes")
        column = column.field("bytes")
        if column.null_count:
            raise ValueError(f"{names.IMAGE} names files that lie elsewhere; their bytes are not in the table")
    if pyarrow.types.is_binary(column.type) or pyarrow.types.is_large_binary(column.type):
        return [value.as_py() for value in column]
    return None


def _numbers(column: Any, name: str) -> Tensor:
    """Numbers, or lists of them of one length at each level, as a tensor; whole numbers of a byte's range as bytes."""
    import pyarrow

    lists = (pyarrow.types.is_list, pyarrow.types.is_large_list, pyarrow.types.is_fixed_size_list)
    shape = [len(column)]
    while any(is_list(column.type) for is_list in lists):
        if len(shape) > MOST_LEVELS:
            raise ValueError(f"{name} is nested in more than {MOST_LEVELS} levels")
        lengths = set(column.value_lengths().to_pylist())
        if len(lengths) != 1 or None in lengths:
            raise ValueError(f"{name} has lists of {len(lengths)} lengths")
        shape.append(lengths.pop())
        column = _plain(column.flatten(), name)
    if pyarrow.types.is_boolean(column.type) or not (
        pyarrow.types.is_integer(column.type) or pyarrow.types.is_floating(column.type)
    ):
        raise ValueError(f"{name} is {str(column.type)[:60]}, no numbers")
    array = column.to_numpy(zero_copy_only=False)
    if array.dtype.kind in "ui":
        if len(array) and (int(array.min()) < -(2**62) or int(array.max()) > 2**62):
            raise ValueError(f"{name} goes beyond whole numbers of 62 bits")
        array = array.astype(numpy.uint8) if _are_bytes(array, name) else array.astype(numpy.int64)
    else:
        array = array.astype(numpy.float32)
    return torch.from_numpy(numpy.ascontiguousarray(array)).reshape(shape)


def _are_bytes(array: Any, name: str) -> bool:
    return name == names.IMAGE and len(array) > 0 and int(array.min()) >= 0 and int(array.max()) <= 255


def _joined(parts: list[Tensor], name: str) -> Tensor:
    kinds = {(part.dtype, tuple(part.shape[1:])) for part in parts}
    if len(kinds) > 1 and parts[0].ndim > 1:
        raise ValueError(f"{name} has images or labels of several shapes or kinds")
    return torch.cat(parts)


def _bytes(content: bytes) -> Tensor:
    return torch.from_numpy(numpy.frombuffer(content or b"\0", numpy.uint8).copy())[: len(content)]


def _class_names(schema: Any) -> list[str]:
    """Names of the classes as the ``datasets`` library writes them into a file."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        listed = features[names.LABEL].get("names", [])
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return []
    good = isinstance(listed, list) and all(isinstance(name, str) for name in listed)
    return listed if good else []


def _own(schema: Any) -> dict[str, Any]:
    """What an export of ours says of its numbers."""
    try:
        own = json.loads((schema.metadata or {})[names.OWN])
    except (KeyError, ValueError, RecursionError):
        return {}
    return own if isinstance(own, dict) else {}


def _with(facts: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    content = json.dumps({"class_names": [], "own": {}, **facts}).encode()
    return {**tensors, names.FACTS: _bytes(content)}


def main(path: str, out: str) -> int:
    """The child: one file in, one safetensors file out."""
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # others set addresses aside, which are limited here
    if not Path(path).is_file():
        return 1
    return write_confined(read, path, out)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
