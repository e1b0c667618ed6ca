"""SVHN's two arrays from a MATLAB file. Run in a child process: scipy's reader crashes on some damaged files."""

import sys

import torch
from torch import Tensor

from distributed_dd.data.confined import write_confined


def _arrays(path: str) -> dict[str, Tensor]:
    from scipy.io import loadmat

    content = loadmat(path, variable_names=["X", "y"])
    return {name: torch.from_numpy(content[name]).contiguous() for name in ("X", "y")}


def main(path: str, out: str) -> int:
    """The child: one file in, one safetensors file out."""
    return write_confined(_arrays, path, out)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
