"""Tensors from other people's ``.pt`` files: read in a child process, with ``weights_only``, or not at all.

A ``.pt`` file is a pickle and could run code. `torch.load(weights_only=True)` refuses everything but
tensors and plain containers; the child process keeps what a crafted file might still do to an interpreter
away from this one, and has no more memory and time than a file of this size needs. There is no fall-back.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distributed_dd.data.confined import read_confined, write_confined

ALLOWED = "tensors in nested lists, saved with torch.save"
MOST_TENSORS, MOST_LEVELS = 1_000_000, 20


def read_pt(path: Path) -> dict[str, Tensor]:
    """Every tensor of ``path`` by its place in the nested lists, such as ``"0.17.3"``; "top" for a bare tensor.

    Raises:
        MissingInputError: no such file, or no regular one. IntegrityError: it holds anything but tensors and numbers in
            lists, or needs more memory or time than a file of its size should.
    """
    return read_confined("distributed_dd.trajectories.foreign", path, "is refused", allowed=ALLOWED)


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


def main(path: str, out: str) -> int:
    """The child: one file in, one safetensors file out."""
    return write_confined(lambda p: _tensors(torch.load(p, map_location="cpu", weights_only=True)), path, out)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
