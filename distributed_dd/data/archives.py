"""Arrays from a stranger's .npz or .safetensors file: what its header says is checked before memory is asked for."""

import zipfile
from collections.abc import Collection
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy
from numpy.lib import format as npy
from safetensors import SafetensorError, safe_open

from distributed_dd.data.reading import check_memory, check_regular, open_regular, place_of, shown
from distributed_dd.errors import IntegrityError, UserError

Array = numpy.ndarray[Any, Any]
LARGE, PIECE = 2**30, 2**24
MOST_EXPANSION = 200
"""A file of more than a GiB that shrinks to less than this part of its size was made to fill a memory."""
NUMBERS = "biufc"
WHAT = ".npz of plain numbers, or .safetensors"


def names_in(path: Path) -> list[str]:
    """The names of the arrays in a file.

    Raises:
        MissingInputError: there is no such file. IntegrityError: it is no such archive.
    """
    if _is_safetensors(path):
        with _safetensors(path) as file:
            return list(file.keys())
    with open_regular(path, WHAT) as file:
        return list(_entries(path, file))


def shape_in(path: Path, name: str) -> tuple[int, ...]:
    """The shape of an array in a file, from its header alone.

    Raises:
        MissingInputError: there is no such file. IntegrityError: it is damaged, or holds no such array.
    """
    if _is_safetensors(path):
        try:
            with _safetensors(path) as file:
                return tuple(file.get_slice(name).get_shape())
        except SafetensorError as error:
            raise _unreadable(path, error) from None
    with open_regular(path, WHAT) as file:
        entries = _entries(path, file)
        try:
            with zipfile.ZipFile(file).open(entries[name]) as entry:
                return _header(entry)[0]
        except Exception as error:  # zipfile, numpy and zlib fail in many ways where content is damaged
            raise _unreadable(path, error) from None


def read_arrays(path: Path, names: Collection[str], kinds: str = NUMBERS) -> dict[str, Array]:
    """The arrays of these names, in this machine's byte order, rows first.

    Args:
        kinds: letters of numpy's kinds that are taken, in an .npz; texts of fixed length are U.

    Raises:
        MissingInputError: there is no such file. IntegrityError: it is damaged, holds anything but numbers under
            these names, or is larger than memory.
    """
    if _is_safetensors(path):
        return _from_safetensors(path, names)
    with open_regular(path, WHAT) as file:
        entries = _entries(path, file)
        wanted = {name: entries[name] for name in names if name in entries}
        _check_expansion(path, list(wanted.values()))
        return {name: _read_npy(path, file, info, kinds) for name, info in wanted.items()}


def whole_labels(labels: Array, length: int, below: int, where: str, name: str) -> Array:
    """``labels`` (n,) or (n, 1) as int64 (n,).

    Raises:
        IntegrityError: they are not whole numbers from 0 on and less than ``below``, one for each of ``length`` images.
    """
    allowed = f"one class for each image: whole numbers ({length},) or ({length}, 1)"
    if labels.dtype.kind in "biu" and labels.ndim == 2 and labels.shape[0] == length and labels.shape[1] > 1:
        problem = f"{name} are {described(labels)}: {labels.shape[1]} labels for each image"
        raise IntegrityError(where, problem, allowed=allowed)
    if labels.dtype.kind not in "biu" or labels.shape not in ((length,), (length, 1)):
        raise IntegrityError(where, f"{name} are {described(labels)}", allowed=allowed)
    labels = labels.reshape(length)
    low, high = (int(labels.min()), int(labels.max())) if length else (0, 0)
    if low < 0:
        raise IntegrityError(where, f"{name} go down to {low}", allowed="0 or more")
    if high >= below:
        raise IntegrityError(
            where, f"{name} go up to {high:,}", allowed=f"classes 0, 1, 2, .., so at most {below - 1:,}"
        )
    return labels.astype(numpy.int64)


def described(array: Array) -> str:
    """Dtype and shape, for a message."""
    return f"torch.{array.dtype} {array.shape}"


def _is_safetensors(path: Path) -> bool:
    return path.suffix.lower() == ".safetensors"


def _safetensors(path: Path) -> Any:
    check_regular(path, WHAT)
    try:
        return safe_open(path, framework="np")
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _from_safetensors(path: Path, names: Collection[str]) -> dict[str, Array]:
    check_memory(place_of(path), 2 * check_regular(path, WHAT))
    try:
        with _safetensors(path) as file:
            return {name: file.get_tensor(name) for name in file.keys() if name in names}  # noqa: SIM118
    except UserError:
        raise
    except Exception as error:  # also numbers that numpy does not have
        raise _unreadable(path, error) from None


def _entries(path: Path, file: IO[bytes]) -> dict[str, zipfile.ZipInfo]:
    try:
        infos = zipfile.ZipFile(file).infolist()
    except Exception as error:  # zipfile, numpy and zlib fail in many ways where content is damaged
        raise _unreadable(path, error) from None
    entries = {info.filename.removesuffix(".npy"): info for info in infos}
    if len(entries) < len(infos):
        raise IntegrityError(place_of(path), "holds two arrays of one name", allowed=WHAT)
    return entries


def _check_expansion(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    unpacked = sum(info.file_size for info in infos)
    packed = min(sum(info.compress_size for info in infos), path.stat().st_size)
    if unpacked > LARGE and unpacked > MOST_EXPANSION * packed:
        problem = f"{packed:,} bytes would unpack to {unpacked:,}"
        raise IntegrityError(place_of(path), problem, allowed=f"at most {MOST_EXPANSION} times as many")
    check_memory(place_of(path), 2 * unpacked)  # images are copied once when they are sorted into splits


def _read_npy(path: Path, file: IO[bytes], info: zipfile.ZipInfo, kinds: str) -> Array:
    try:
        with zipfile.ZipFile(file).open(info) as entry:
            shape, by_column, dtype = _header(entry)
            if dtype.kind not in kinds or not dtype.itemsize:
                raise ValueError(f"{shown([info.filename])} holds {str(dtype)[:40]}, no numbers")
            num_bytes = prod(shape) * dtype.itemsize
            if min(shape, default=0) < 0 or num_bytes > info.file_size:
                raise ValueError(f"{shown([info.filename])} says {shape}, which is not what it holds")
            content = numpy.empty(num_bytes, numpy.uint8)
            _fill(content, entry)
            if entry.read(1):
                raise ValueError(f"{shown([info.filename])} holds more than {shape}")
    except Exception as error:  # zipfile, numpy and zlib fail in many ways where content is damaged
        raise _unreadable(path, error) from None
    flat: Array = content.view(dtype)
    array: Array = flat.reshape(shape[::-1]).T if by_column else flat.reshape(shape)
    return numpy.ascontiguousarray(array.astype(dtype.newbyteorder("="), copy=False)).reshape(shape)


def _header(entry: IO[bytes]) -> tuple[tuple[int, ...], bool, numpy.dtype]:
    version = npy.read_magic(entry)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"is of numpy's format {version}")
    return (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(entry)


def _fill(content: Array, entry: IO[bytes]) -> None:
    rest = memoryview(content)
    while len(rest):
        piece = entry.read(min(len(rest), PIECE))
        if not piece:
            raise EOFError("it ends early")
        rest[: len(piece)] = piece
        rest = rest[len(piece) :]


def _unreadable(path: Path, error: BaseException) -> IntegrityError:
    said = shown([str(error) or type(error).__name__], most=1)
    problem = f"cannot be read as {path.suffix or 'an archive'}: {said}"
    return IntegrityError(place_of(path), problem, allowed=WHAT)
