"""Picture files to one tensor: decoded side by side, grey or colour, one size."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from distributed_dd.errors import IntegrityError

SHOWN = 5


@dataclass(frozen=True)
class Reading:
    """How a picture becomes pixels: ``size`` crops the centre square after resizing the shorter side."""

    grey: bool = False
    size: int | None = None
    skip_unreadable: bool = False


def read_pictures(files: Sequence[Path], reading: Reading) -> tuple[Tensor, Tensor, list[Path]]:
    """Images uint8 (n, C, H, W), indices (n,) into ``files`` of those read, and the unreadable files.

    Raises:
        IntegrityError: a file cannot be read and may not be skipped, or sizes differ.
    """
    with ThreadPoolExecutor() as pool:  # the decoders release the interpreter's lock
        decoded = list(pool.map(lambda file: _decode(file, reading), files))
    bad = [file for file, image in zip(files, decoded, strict=True) if image is None]
    if bad and not reading.skip_unreadable:
        named = ", ".join(map(str, bad[:SHOWN])) + (" .." if len(bad) > SHOWN else "")
        raise IntegrityError(
            named,
            f"{len(bad)} of {len(files)} images cannot be read",
            fix="mend them, or data.unreadable=skip",
        )
    kept = [(index, image) for index, image in enumerate(decoded) if image is not None]
    sizes = sorted({tuple(image.shape[1:]) for _, image in kept})
    if len(sizes) > 1:
        one = next(files[i] for i, image in kept if tuple(image.shape[1:]) == sizes[0])
        other = next(files[i] for i, image in kept if tuple(image.shape[1:]) == sizes[-1])
        problem = f"images have {len(sizes)} sizes: {one} is {sizes[0]}, {other} is {sizes[-1]}"
        raise IntegrityError(str(files[0].parent.parent), problem, fix="set data.size, such as data.size=32")
    if not kept:
        return torch.empty(0, dtype=torch.uint8), torch.empty(0, dtype=torch.long), bad
    return torch.stack([image for _, image in kept]), torch.tensor([index for index, _ in kept]), bad


def _decode(file: Path, reading: Reading) -> Tensor | None:
    from torchvision.transforms.v2 import functional as F

    try:
        with Image.open(file) as opened:
            picture = opened.convert("L" if reading.grey else "RGB")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    if reading.size is not None:
        picture = F.center_crop(F.resize(picture, [reading.size], antialias=True), [reading.size])
    return F.pil_to_tensor(picture)
