"""Picture files to one tensor: decoded side by side, as every viewer shows them, grey or colour, one size.

Turned as their EXIF orientation says. Transparent parts are put on white. 16-bit grey keeps its range (divided by
257). Palettes and CMYK become RGB by Pillow's plain formulas, without colour profiles. Of several frames the first.
"""

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from distributed_dd.data.reading import check_memory, open_regular, place_of, shown
from distributed_dd.errors import IntegrityError, UserError

SHOWN = 5
# By content, whatever the name ends in; others of Pillow's readers start programs, such as Ghostscript.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "DIB", "TIFF", "WEBP", "GIF", "JPEG2000", "TGA")
ORIENTATION = 0x0112
ON_WHITE, TURNED, SIXTEEN_BITS = ("had transparent parts, put on white", "were turned by their EXIF", "had 16 bits")
AHEAD = 256
"""Pictures that may wait for the slowest before them."""
LARGE = 2**25
"""Pixels of a picture that is decoded alone, for memory's sake."""
_large = Lock()


@dataclass(frozen=True)
class Reading:
    """How a picture becomes pixels: ``size`` crops the centre square after resizing the shorter side."""

    grey: bool = False
    size: int | None = None
    skip_unreadable: bool = False


@dataclass(frozen=True)
class Pictures:
    """Images uint8 (n, C, H, W), indices (n,) into the files of those read, and remarks for people."""

    images: Tensor
    kept: Tensor
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Decoded:
    """Pixels (C, H, W) and what was done to them; or the reason why there are none."""

    pixels: Tensor | None
    remarks: tuple[str, ...] = ()
    reason: str = ""


def read_pictures(files: Sequence[Path], reading: Reading) -> Pictures:
    """Read all files.

    Raises:
        IntegrityError: a file cannot be read and may not be skipped, none can, sizes differ, or all together are
            larger than memory.
    """
    bad: dict[Path, str] = {}
    kept: list[int] = []
    remarks: Counter[str] = Counter()
    examples: dict[tuple[int, ...], Path] = {}
    images = torch.empty(0, dtype=torch.uint8)
    for index, decoded in enumerate(_all(files, reading)):
        pixels, file = decoded.pixels, files[index]
        if pixels is None:
            bad[file] = decoded.reason
            continue
        if not examples:
            check_memory(place_of(file), 2 * len(files) * pixels.numel(), f"{len(files)} pictures of its size")
            images = torch.empty((len(files), *pixels.shape), dtype=torch.uint8)
        examples.setdefault(tuple(pixels.shape[1:]), file)
        if len(examples) == 1:
            images[len(kept)] = pixels
        kept.append(index)
        remarks.update(decoded.remarks)
    _check(files, bad, examples, reading)
    notes = [f"{count} pictures {remark}" for remark, count in sorted(remarks.items())]
    if bad:
        first, reason = next(iter(bad.items()))
        notes.insert(0, f"{len(bad)} unreadable pictures were skipped, such as {place_of(first)} ({reason})")
    return Pictures(images[: len(kept)], torch.tensor(kept), tuple(notes))


def _check(files: Sequence[Path], bad: dict[Path, str], examples: dict[tuple[int, ...], Path], how: Reading) -> None:
    if bad and (not how.skip_unreadable or not examples):
        named = ", ".join(map(place_of, [*bad][:SHOWN])) + (" .." if len(bad) > SHOWN else "")
        reasons = ", ".join(dict.fromkeys([*bad.values()][:SHOWN]))
        problem = f"{len(bad)} of {len(files)} images cannot be read: {reasons}"
        raise IntegrityError(named, problem, fix="mend them, or data.unreadable=skip")
    if len(examples) > 1:
        (size, one), *_, (other_size, other) = sorted(examples.items())
        problem = f"images have {len(examples)} sizes: {place_of(one)} is {size}, {place_of(other)} is {other_size}"
        raise IntegrityError(place_of(files[0].parent.parent), problem, fix="set data.size, such as data.size=32")


def _all(files: Sequence[Path], reading: Reading) -> Iterator[_Decoded]:
    """Each file in order, some ahead of the one that is asked for."""
    Image.init()  # before threads ask for readers
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:  # the decoders release the interpreter's lock
        warnings.simplefilter("ignore", UserWarning)  # odd EXIF and palettes
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the error at twice the size is kept
        for start in range(0, len(files), AHEAD):
            yield from pool.map(lambda file: _decode(file, reading), files[start : start + AHEAD])


def _decode(file: Path, reading: Reading) -> _Decoded:
    from torchvision.transforms.v2 import functional as F

    try:
        with open_regular(file) as content, Image.open(content, formats=FORMATS) as opened, _alone(opened, reading):
            picture, remarks = _as_shown(opened)
            picture = picture.convert("L" if reading.grey else "RGB")
            if reading.size is not None:
                picture = F.center_crop(F.resize(picture, [reading.size], antialias=True), [reading.size])
            return _Decoded(F.pil_to_tensor(picture), remarks)
    except UserError as error:
        return _Decoded(None, reason=error.problem)
    except UnidentifiedImageError:
        return _Decoded(None, reason="no picture of a known format")
    except Exception as error:  # a decoder fails in many ways where a file is not what it expects
        return _Decoded(None, reason=shown([str(error) or type(error).__name__]))


def _alone(picture: Image.Image, reading: Reading) -> AbstractContextManager[object]:
    """One at a time for large pictures; refuses a strip that no memory holds once its shorter side is resized."""
    width, height = picture.size
    if reading.size is not None:
        longer = max(width, height) * reading.size // min(width, height)
        if longer * reading.size > (Image.MAX_IMAGE_PIXELS or LARGE):
            raise ValueError(f"{width} x {height} is too long a strip to be cropped to a square")
    return _large if width * height > LARGE else nullcontext()


def _as_shown(picture: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Upright, opaque, 8 bits for each channel; and what was done, in words."""
    picture.load()
    known_range = picture.format in ("PNG", "PPM")
    remarks = []
    with suppress(Exception):  # damaged EXIF says nothing
        if picture.getexif().get(ORIENTATION, 1) in range(2, 9):
            picture = ImageOps.exif_transpose(picture)
            remarks.append(TURNED)
    if picture.mode.startswith("I;16") or (picture.mode == "I" and known_range):
        values = numpy.asarray(picture).clip(0, 65535).astype(numpy.uint32)
        picture = Image.fromarray(((values + 128) // 257).astype(numpy.uint8))
        remarks.append(SIXTEEN_BITS)
    elif picture.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {picture.mode} have no known range; save it with 8 or 16 bits")
    if picture.has_transparency_data:
        colours = picture.convert("RGBA")
        if numpy.asarray(colours.getchannel("A")).min() < 255:
            white = Image.new("RGBA", colours.size, "white")
            white.alpha_composite(colours)
            picture = white.convert("RGB")
            remarks.append(ON_WHITE)
    return picture, tuple(remarks)
