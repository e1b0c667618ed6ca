"""One ``.npz`` of images and labels; what ``export --as npz`` writes is such a file."""

from pathlib import Path

import numpy
import torch
from torch import Tensor

from distributed_dd.data.archives import NUMBERS, Array, described, names_in, read_arrays, whole_labels
from distributed_dd.data.reading import shown
from distributed_dd.errors import IntegrityError
from distributed_dd.evaluation.published_sets.foreign_set import (
    ForeignSet,
    Values,
    Wanted,
    as_numbers,
    channels_first,
)

WORDS = "an .npz file with images or pixels, and labels"
KEYS = "images or pixels; labels (n,) or (n, K), or soft_labels (n, K); learning_rate, class_names, values"
IMAGES, LABELS, RATE = ("images", "pixels"), ("labels", "soft_labels", "classes"), "learning_rate"
TEXTS = ("class_names", "values")


def holds(source: Path) -> bool:
    """Whether it is such a file, or a folder with one."""
    return _file(source) is not None


def read(source: Path, wanted: Wanted) -> ForeignSet:
    """Its arrays. Images may be (n, C, H, W), (n, H, W, C) or (n, H, W).

    Raises:
        MissingInputError: there is no such file. IntegrityError: keys, shapes or kinds of numbers that do not fit.
    """
    path = _file(source) or source
    where, names = str(path), names_in(path)
    if any(name.startswith("stored.") for name in names):
        problem = "holds a set as this program stores it in a form"
        raise IntegrityError(where, problem, allowed=KEYS, fix="distributed-dd export RUN_FOLDER --as npz")
    if not {*IMAGES} & {*names} or not {*LABELS} & {*names}:
        raise IntegrityError(where, f"has {shown(names) or 'nothing'}", allowed=KEYS)
    arrays = read_arrays(path, [name for name in (*IMAGES, *LABELS, RATE) if name in names])
    texts = read_arrays(path, [name for name in TEXTS if name in names], NUMBERS + "U")
    stored = {name: _images(arrays[name], where) for name in IMAGES if name in arrays}
    pixels, images = stored.get("pixels"), stored.get("images")
    both = pixels is not None and images is not None and images.dtype != torch.uint8
    first = pixels if both or images is None else images
    assert first is not None
    classes, labels = _labels(arrays, len(first), wanted.num_classes, where)
    return ForeignSet(
        where=where,
        labels_at=where,
        files=[path],
        images=first,
        seen=images if both else None,
        values=_values(texts["values"], where) if "values" in texts else None,
        classes=classes,
        labels=labels,
        class_names=tuple(map(str, texts["class_names"].tolist())) if "class_names" in texts else (),
        learning_rate=_rate(arrays.get(RATE), where),
    )


def _file(source: Path) -> Path | None:
    if source.is_dir():
        files = sorted(source.glob("*.npz"))
        return files[0] if len(files) == 1 else None
    return source if source.suffix.lower() == ".npz" else None


def _images(array: Array, where: str) -> Tensor:
    if array.dtype.kind not in "uf" or (array.dtype.kind == "u" and array.dtype != numpy.uint8):
        raise IntegrityError(where, f"images are {described(array)}", allowed="bytes or floating-point numbers")
    return as_numbers(channels_first(torch.from_numpy(array), where), where, "images")


def _labels(arrays: dict[str, Array], count: int, num_classes: int, where: str) -> tuple[Tensor | None, Tensor | None]:
    """Classes (n,) and labels (n, K), either where it is there."""
    classes, labels = None, None
    for name in (name for name in LABELS if name in arrays):
        array = arrays[name]
        if array.ndim == 1:
            classes = torch.from_numpy(whole_labels(array, count, num_classes, where, name))
        elif array.shape != (count, num_classes) or array.dtype.kind != "f":
            allowed = f"floating-point numbers ({count}, {num_classes}), or whole numbers ({count},)"
            raise IntegrityError(where, f"{name} are {described(array)}", allowed=allowed)
        else:
            labels = as_numbers(torch.from_numpy(array), where, name)
    return classes, labels


def _values(array: Array, where: str) -> Values:
    word = str(array.reshape(-1)[0]) if array.size == 1 else ""
    if word == "pixels":
        return "pixels"
    if word == "seen":
        return "seen"
    raise IntegrityError(where, f"values is {shown([word])}", allowed="pixels or seen")


def _rate(array: Array | None, where: str) -> float | None:
    if array is None:
        return None
    if array.size != 1 or array.dtype.kind not in "iuf" or not 0 < float(array.reshape(-1)[0]) < float("inf"):
        raise IntegrityError(where, f"{RATE} is {described(array)}", allowed="one number above 0")
    return float(array.reshape(-1)[0])
