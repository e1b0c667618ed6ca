"""The field's ``.pt`` files: images, labels and a learning rate, as the code of MTT and its followers saves them."""

import os
from pathlib import Path

import torch
from torch import Tensor

from distributed_dd.data.reading import check_regular
from distributed_dd.errors import IntegrityError
from distributed_dd.evaluation.importing import IMAGES, LABELS, RATE
from distributed_dd.evaluation.published_sets.foreign_set import ForeignSet, Wanted, as_numbers
from distributed_dd.trajectories.foreign import read_pt

NAMES = ((IMAGES, LABELS, RATE), ("images.pt", "labels.pt", "lr.pt"))
WORDS = f"a folder with {IMAGES} and {LABELS} (also images.pt and labels.pt)"
DEFAULT_RATE = 0.01
"""Of the field's code, where a set brings none."""


def holds(source: Path) -> bool:
    """Whether it is a folder with images."""
    return _names(source) is not None


def read(source: Path, wanted: Wanted) -> ForeignSet:
    """The set in three files; labels are numbers (n, K) or class numbers (n,).

    Raises:
        MissingInputError: a file is missing. IntegrityError: shapes do not fit, numbers are not finite, or images
            or labels are of another kind.
    """
    names = _names(source) or NAMES[0]
    images_at, labels_at, rate_at = (source / name for name in names)
    images = _images(images_at, wanted.image_shape)
    classes, labels = _labels(labels_at, len(images), wanted.num_classes)
    by_convention = names == NAMES[0] and images.dtype != torch.uint8
    note = f"{IMAGES} holds numbers as networks see them, as the field's code saves it (set.values=pixels: pixels)"
    return ForeignSet(
        where=str(images_at),
        labels_at=str(labels_at),
        files=[file for file in (images_at, labels_at, rate_at) if file.exists()],
        images=images,
        values=(wanted.reading.values or "seen") if by_convention else None,
        classes=classes,
        labels=labels,
        learning_rate=_rate(rate_at),
        notes=(note,) if by_convention and wanted.reading.values is None else (),
    )


def _names(source: Path) -> tuple[str, str, str] | None:
    return next((names for names in NAMES if os.path.lexists(source / names[0])), None) if source.is_dir() else None


def _images(path: Path, image_shape: tuple[int, ...]) -> Tensor:
    images = _only(path)
    if images.ndim != 4 or not images.numel():
        problem, allowed = f"images are {tuple(images.shape)}", f"(n, {', '.join(map(str, image_shape))})"
        raise IntegrityError(str(path), problem, allowed=allowed)
    return as_numbers(images, str(path), "images")


def _labels(path: Path, count: int, num_classes: int) -> tuple[Tensor | None, Tensor | None]:
    """Classes (n,), or labels (n, K)."""
    labels = _only(path)
    allowed = f"({count}, {num_classes}) logits or probabilities, or ({count},) class numbers below {num_classes}"
    if labels.ndim == 1 and not labels.is_floating_point() and not labels.is_complex():
        numbers = labels.numpy()  # torch compares no unsigned numbers
        if len(numbers) == count and int(numbers.min()) >= 0 and int(numbers.max()) < num_classes:
            return torch.from_numpy(numbers.astype("int64")), None
    if tuple(labels.shape) != (count, num_classes):
        raise IntegrityError(str(path), f"labels are {labels.dtype} {tuple(labels.shape)}", allowed=allowed)
    if not labels.is_floating_point():
        raise IntegrityError(str(path), f"holds {labels.dtype}", allowed=f"floating-point numbers: {allowed}")
    return None, as_numbers(labels, str(path), "labels")


def _rate(path: Path) -> float:
    rate = _only(path) if os.path.lexists(path) else torch.tensor(DEFAULT_RATE)
    if rate.numel() != 1 or rate.is_complex() or not 0 < float(rate) < float("inf"):
        actual = rate.tolist() if rate.numel() == 1 else f"of shape {tuple(rate.shape)}"
        raise IntegrityError(str(path), f"is {actual}", allowed="one number above 0")
    return float(rate)


def _only(path: Path) -> Tensor:
    check_regular(path, WORDS)
    tensors = read_pt(path)
    if set(tensors) != {"top"}:
        raise IntegrityError(str(path), f"holds {len(tensors)} tensors in lists", allowed="one tensor")
    return tensors["top"]
