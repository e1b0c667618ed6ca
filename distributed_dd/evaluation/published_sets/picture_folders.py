"""Pictures in a folder for each class, as RDED, CCFS and others publish them; real pictures lie the same way."""

import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path

import torch
from torch import Tensor

from distributed_dd.data.image_folder import APPLE_FILE, APPLE_FOLDER, ENDINGS
from distributed_dd.data.pictures import Reading, read_pictures
from distributed_dd.data.reading import files_below
from distributed_dd.errors import IntegrityError, MissingInputError
from distributed_dd.evaluation.published_sets.foreign_set import ForeignSet, Wanted
from distributed_dd.places import displayable

WORDS = "a folder of class folders of pictures (00000/1.jpg, or cat/1.png; also below train/)"


def holds(source: Path) -> bool:
    """Whether a folder in it, or in its ``train/``, holds a picture."""
    return source.is_dir() and any(next(_pictures(folder), None) for folder in _classes(_root(source)))


def read(source: Path, wanted: Wanted) -> ForeignSet:
    """Bytes (n, C, H, W) and the folders' names.

    Raises:
        IntegrityError: a picture cannot be read, or sizes differ and nobody asked for one size. MissingInputError: a
            class has no pictures.
    """
    folders = _classes(_root(source))
    by_class = [sorted(_pictures(folder)) for folder in folders]
    if empty := [folder.name for folder, files in zip(folders, by_class, strict=True) if not files]:
        raise MissingInputError(str(source), f"the folder {displayable(empty[0])} holds no pictures")
    files = [file for of_class in by_class for file in of_class]
    images, notes = as_bytes(files, wanted, str(source))
    numbers = [number for number, of_class in enumerate(by_class) for _ in of_class]
    return ForeignSet(
        where=str(source),
        labels_at=str(source),
        files=files,
        images=images,
        values="pixels",
        classes=torch.tensor(numbers),
        class_names=tuple(displayable(folder.name) for folder in folders),
        notes=notes,
    )


def as_bytes(files: list[Path], wanted: Wanted, where: str) -> tuple[Tensor, tuple[str, ...]]:
    """The pictures as uint8 (n, C, H, W) and remarks on them; C is 1 where none of them has colours.

    Raises:
        IntegrityError: one cannot be read, or sizes differ and nobody asked for one size.
    """
    _, height, width = wanted.image_shape
    size = max(height, width) if wanted.reading.resize and _differ(files, (height, width)) else None
    try:
        pictures = read_pictures(files, Reading(grey=False, size=size))
    except IntegrityError as error:
        sizes = "sizes" in error.problem
        fix = f"set.resize=true brings all to {height} x {width}" if sizes else "mend or remove them"
        raise IntegrityError(where, error.problem, fix=fix) from None
    images = pictures.images
    if bool((images == images[:, :1]).all()):
        images = images[:, :1]
    return images.contiguous(), pictures.notes


def _differ(files: list[Path], size: tuple[int, int]) -> bool:
    """Whether any picture is of another size, (H, W), than this; what cannot be read is found later."""
    from PIL import Image

    for file in files:
        try:
            with Image.open(file) as picture:
                if picture.size[::-1] != size:
                    return True
        except Exception:  # a decoder fails in many ways where a file is not what it expects
            return True
    return False


def resized(pixels: Tensor, height: int, width: int) -> Tensor:
    """Pixels (n, C, h, w) brought to (n, C, height, width): the shorter side, then the centre."""
    from torchvision.transforms.v2 import functional as F

    scale = max(height / pixels.shape[2], width / pixels.shape[3])
    size = [max(height, ceil(pixels.shape[2] * scale - 1e-6)), max(width, ceil(pixels.shape[3] * scale - 1e-6))]
    centre: Tensor = F.center_crop(F.resize(pixels, size, antialias=True), [height, width])
    return centre.clamp(0, 1)


def _root(source: Path) -> Path:
    """Its ``train/``, where that is how it is split."""
    return source / "train" if (source / "train").is_dir() else source


def _classes(root: Path) -> list[Path]:
    with os.scandir(root) as entries:
        names = [entry.name for entry in entries if entry.is_dir()]
    return [root / name for name in sorted(names) if name[0] != "." and name != APPLE_FOLDER]


def _pictures(folder: Path) -> Iterator[Path]:
    for file in files_below(folder):
        if not file.name.startswith(APPLE_FILE) and file.suffix.lower() in ENDINGS:
            yield file
