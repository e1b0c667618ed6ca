"""Tensors from other people's ``.pt`` files: read in a child process, with ``weights_only``, or not at all.

A ``.pt`` file is a pickle and could run code. `torch.load(weights_only=True)` refuses everything but
tensors and plain containers; the child process keeps what a crafted file might still do to an interpreter
away from this one. There is no fall-back.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from distributed_dd.children import child_python
from distributed_dd.errors import IntegrityError, MissingInputError

REFUSED = 3


def read_pt(path: Path) -> dict[str, Tensor]:
    """Every tensor of ``path`` by its place in the nested lists, such as ``"0.17.3"``; "" for a bare tensor.

    Raises:
        MissingInputError: no such file. IntegrityError: it holds anything but tensors and numbers in lists.
    """
    if not path.is_file():
        raise MissingInputError(str(path), "there is no such file")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "tensors.safetensors"
        command = child_python("distributed_dd.trajectories.foreign", [str(path.resolve()), str(out)])
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0 or not out.exists():
            said = (done.stdout.strip() or done.stderr.strip() or "the reader died").splitlines()[-1]
            raise IntegrityError(
                str(path),
                f"is refused: {said[:300]}",
                allowed="tensors in nested lists, saved with torch.save",
            )
        return load_file(out)


def _places(value: Any, place: str = "") -> dict[str, Tensor]:
    if isinstance(value, Tensor):
        return {place: value.detach().clone().contiguous()}
    if isinstance(value, int | float):
        return {place: torch.tensor(value)}
    if isinstance(value, list | tuple):
        tensors: dict[str, Tensor] = {}
        for index, entry in enumerate(value):
            tensors |= _places(entry, f"{place}.{index}" if place else str(index))
        return tensors
    raise TypeError(f"a {type(value).__name__} at place {place or 'top'!r}")


def main(path: str, out: str) -> int:
    """The child: one file in, one safetensors file out."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        save_file({place or "top": tensor for place, tensor in _places(content).items()}, out)
    except Exception as error:
        print(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
