"""Tensors from other people's ``.pt`` files: read in a child process, with ``weights_only``, or not at all.

A ``.pt`` file is a pickle and could run code. `torch.load(weights_only=True)` refuses everything but
tensors and plain containers; the child process keeps what a crafted file might still do to an interpreter
away from this one, and has no more memory and time than a file of this size needs. There is no fall-back.
"""

import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from distributed_dd.children import child_python
from distributed_dd.data.reading import check_memory, check_regular, place_of
from distributed_dd.errors import IntegrityError
from distributed_dd.places import displayable

REFUSED = 3
ALLOWED = "tensors in nested lists, saved with torch.save"
# What a file of so many bytes may take: read, copied, written, and as much again. Beside what torch itself takes.
MEMORY_PER_BYTE, SPARE_MEMORY = 4, 2**30
SECONDS, BYTES_PER_SECOND = 300, 2**21
MOST_TENSORS, MOST_LEVELS, LONGEST_MESSAGE = 1_000_000, 20, 300


def read_pt(path: Path) -> dict[str, Tensor]:
    """Every tensor of ``path`` by its place in the nested lists, such as ``"0.17.3"``; "top" for a bare tensor.

    Raises:
        MissingInputError: no such file, or no regular one. IntegrityError: it holds anything but tensors and numbers in
            lists, or needs more memory or time than a file of its size should.
    """
    size = check_regular(path, ALLOWED)
    check_memory(place_of(path), 2 * size, "its tensors")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "tensors.safetensors"
        command = child_python("distributed_dd.trajectories.foreign", [str(path.resolve()), str(out)])
        seconds = SECONDS + size / BYTES_PER_SECOND
        try:
            done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=seconds)
        except subprocess.TimeoutExpired:
            raise IntegrityError(
                place_of(path), f"is refused: it was not read in {seconds:.0f} seconds", allowed=ALLOWED
            ) from None
        if done.returncode != 0 or not out.exists():
            raise IntegrityError(place_of(path), f"is refused: {_said(done)}", allowed=ALLOWED)
        try:
            return load_file(out)
        except (SafetensorError, OSError) as error:
            raise IntegrityError(place_of(path), f"is refused: {error}", allowed=ALLOWED) from None


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    """The child's last line, or that it died."""
    lines = (done.stdout.strip() or done.stderr.strip() or b"the reader died").decode(errors="replace").splitlines()
    return displayable(lines[-1][:LONGEST_MESSAGE])


def _places(value: Any, place: tuple[int, ...] = ()) -> Iterator[tuple[str, Tensor]]:
    name = ".".join(map(str, place)) or "top"
    if isinstance(value, Tensor):
        yield name, value.detach().clone().contiguous()
    elif isinstance(value, int | float):
        yield name, torch.tensor(value)
    elif not isinstance(value, list | tuple):
        raise TypeError(f"a {type(value).__name__} at place {name!r}")
    elif not value:
        raise ValueError(f"an empty list at place {name!r}")
    elif len(place) == MOST_LEVELS:
        raise ValueError(f"lists in more than {MOST_LEVELS} levels")
    else:
        for index, entry in enumerate(value):
            yield from _places(entry, (*place, index))


def _tensors(content: Any) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, tensor in _places(content):
        if len(tensors) == MOST_TENSORS:
            raise ValueError(f"more than {MOST_TENSORS:,} tensors")
        tensors[name] = tensor
    return tensors


def _limit(size: int) -> None:
    """Allow this process what a file of ``size`` bytes needs, above what it has already.

    The limit is one of addresses, which Linux keeps and other systems may not.
    """
    torch.set_num_threads(1)  # each would take addresses of its own
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return
    most = pages * resource.getpagesize() + MEMORY_PER_BYTE * size + SPARE_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    disk = MEMORY_PER_BYTE * size + SPARE_MEMORY
    resource.setrlimit(resource.RLIMIT_FSIZE, (disk, disk))


def main(path: str, out: str) -> int:
    """The child: one file in, one safetensors file out."""
    size = Path(path).stat().st_size
    try:
        _limit(size)
        content = torch.load(path, map_location="cpu", weights_only=True)
        save_file(_tensors(content), out)
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        if isinstance(error, MemoryError) or "allocate memory" in first:
            first = f"it needs more memory than a file of {size:,} bytes should"
        print(f"{type(error).__name__}: {first}"[:LONGEST_MESSAGE].encode("ascii", "backslashreplace").decode())
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
