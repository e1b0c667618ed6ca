"""Other people's expert buffers and distilled sets, in our formats."""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distributed_dd.data.reading import check_regular
from distributed_dd.durable import sha256_of
from distributed_dd.errors import IntegrityError
from distributed_dd.family import plain
from distributed_dd.learning.classes import hard_logits
from distributed_dd.outer.ports import Progress
from distributed_dd.trajectories.foreign import read_pt
from distributed_dd.trajectories.forms import Full
from distributed_dd.trajectories.store import TrajectoryStore

BUFFERS, IMAGES, LABELS, RATE = "replay_buffer_*.pt", "images_best.pt", "labels_best.pt", "lr_best.pt"


def buffers_in(path: Path) -> list[Path]:
    """The expert buffers that ``path`` names: a file, or a folder's ``replay_buffer_*.pt`` by number.

    Raises:
        MissingInputError: it is neither a file nor a folder.
    """
    if not path.is_dir():
        check_regular(path, BUFFERS)
        return [path]
    return sorted(path.glob(BUFFERS), key=lambda file: int(re.sub(r"\D", "", file.stem) or 0))


def import_experts(
    files: Sequence[Path], network: Any, layers: nn.Module, root: str | Path, progress: Progress
) -> TrajectoryStore:
    """Write the trajectories of the buffers as a store below ``root``; returns it.

    A buffer is a list of trajectories; a trajectory a list of checkpoints; a checkpoint a list of parameter
    tensors in ``layers.parameters()`` order.

    Raises:
        MissingInputError: a buffer is no file. IntegrityError: shapes that are not the network's, numbers that are not
            finite, trajectories of different lengths, or one whose checkpoints are all the same (saved without
            cloning on a CPU).
    """
    for file in files:
        check_regular(file, BUFFERS)
    identity = {
        "imported": [sha256_of(file) for file in files],
        "network": {"kind": type(network).__name__.lower(), **plain(network)},
    }
    store = TrajectoryStore.below(root, identity)
    shapes = [tuple(p.shape) for p in layers.parameters()]
    with store.folder.lock(progress.say), progress.bar("import", len(files)) as bar:
        number, length = 0, 0
        for file in files:
            for trajectory in _trajectories(file, read_pt(file), shapes):
                length = length or len(trajectory)
                if len(trajectory) != length:
                    problem = f"trajectory {number} has {len(trajectory)} checkpoints, others have {length}"
                    raise IntegrityError(str(file), problem)
                epochs = range(length)
                tensors = Full().tensors(epochs, trajectory, ())
                store.write(number, tensors, epochs, {"source": file.name})
                number += 1
            bar.advance(f"{number} experts")
        store.write_manifest(number)
    return store


def _trajectories(file: Path, tensors: dict[str, Tensor], shapes: list[tuple]) -> list[Tensor]:
    """Trajectories (epochs + 1, P) of one buffer."""
    grouped: dict[int, dict[int, dict[int, Tensor]]] = defaultdict(lambda: defaultdict(dict))
    for place, tensor in tensors.items():
        parts = place.split(".")
        if len(parts) != 3 or not all(part.isdigit() for part in parts):
            problem = f"holds a tensor at place {place!r}"
            raise IntegrityError(str(file), problem, allowed="trajectory.checkpoint.parameter, as MTT saves them")
        expert, epoch, parameter = map(int, parts)
        grouped[expert][epoch][parameter] = tensor
    trajectories = []
    for expert in sorted(grouped):
        checkpoints = []
        for epoch in sorted(grouped[expert]):
            values = [grouped[expert][epoch][p] for p in sorted(grouped[expert][epoch])]
            _check_values(f"{file}, trajectory {expert}, checkpoint {epoch}", values, shapes)
            checkpoints.append(torch.cat([value.float().flatten() for value in values]))
        if len(checkpoints) > 1 and all(torch.equal(checkpoints[0], other) for other in checkpoints[1:]):
            raise IntegrityError(
                f"{file}, trajectory {expert}",
                f"all {len(checkpoints)} checkpoints are the same: they were saved without cloning, so each "
                "holds the last parameters",
                fix="train these experts again; the trajectory is lost",
            )
        trajectories.append(torch.stack(checkpoints))
    return trajectories


def _check_values(where: str, values: list[Tensor], shapes: list[tuple]) -> None:
    _check_shapes(where, [tuple(value.shape) for value in values], shapes)
    for number, value in enumerate(values):
        if not value.is_floating_point():
            raise IntegrityError(where, f"parameter {number} is {value.dtype}", allowed="floating-point numbers")
        if not bool(value.float().isfinite().all()):
            raise IntegrityError(where, f"parameter {number} holds numbers that are not finite")


def _check_shapes(where: str, stored_shapes: list[tuple], shapes: list[tuple]) -> None:
    if stored_shapes == shapes:
        return
    if len(stored_shapes) != len(shapes):
        problem, allowed = (
            f"has {len(stored_shapes)} parameters",
            f"{len(shapes)}, as the network in the configuration",
        )
    else:
        wrong = next(i for i, pair in enumerate(zip(stored_shapes, shapes, strict=True)) if pair[0] != pair[1])
        problem = f"parameter {wrong} has shape {stored_shapes[wrong]}"
        allowed = f"{shapes[wrong]}, as the network in the configuration"
    raise IntegrityError(where, problem, allowed=allowed)


def read_set(folder: Path, image_shape: tuple[int, ...], num_classes: int) -> dict[str, Tensor]:
    """The set in ``folder``'s three files, as an artefact holds it, sorted by class.

    Labels may be logits (n, K) or class numbers (n,); without a learning rate 0.01 is taken, as the
    sources' default is.

    Raises:
        MissingInputError: a file is missing. IntegrityError: shapes do not fit, numbers are not finite, or images
            or logits are whole numbers.
    """
    images = _images(folder / IMAGES, image_shape)
    labels = _labels(folder / LABELS, len(images), num_classes)
    classes = labels.argmax(1)
    order = classes.argsort(stable=True)
    return {
        "images": images[order].contiguous(),
        "labels": labels[order].contiguous(),
        "classes": classes[order].contiguous(),
        "learning_rate": _rate(folder / RATE),
    }


def _images(path: Path, image_shape: tuple[int, ...]) -> Tensor:
    images = _only(path)
    if images.ndim != 4 or tuple(images.shape[1:]) != image_shape or not images.numel():
        problem, allowed = f"images are {tuple(images.shape)}", f"(n, {', '.join(map(str, image_shape))})"
        raise IntegrityError(str(path), problem, allowed=allowed)
    return _finite(path, images, "images, preprocessed as networks see them")


def _labels(path: Path, count: int, num_classes: int) -> Tensor:
    labels = _only(path)
    allowed = f"({count}, {num_classes}) logits, or ({count},) class numbers below {num_classes}"
    if labels.ndim == 1 and not labels.is_floating_point() and not labels.is_complex():
        numbers = labels.numpy()  # torch compares no unsigned numbers
        in_range = len(numbers) and int(numbers.min()) >= 0 and int(numbers.max()) < num_classes
        labels = hard_logits(torch.from_numpy(numbers.astype("int64")), num_classes) if in_range else labels
    if tuple(labels.shape) != (count, num_classes):
        raise IntegrityError(str(path), f"labels are {tuple(labels.shape)}", allowed=allowed)
    return _finite(path, labels, allowed)


def _rate(path: Path) -> Tensor:
    rate = _only(path) if os.path.lexists(path) else torch.tensor(0.01)
    if rate.numel() != 1 or rate.is_complex() or not 0 < float(rate) < float("inf"):
        actual = rate.tolist() if rate.numel() == 1 else f"of shape {tuple(rate.shape)}"
        raise IntegrityError(str(path), f"is {actual}", allowed="one number above 0")
    return rate.float().reshape(()).clone()


def _finite(path: Path, values: Tensor, allowed: str) -> Tensor:
    """``values`` as float32."""
    if not values.is_floating_point():
        raise IntegrityError(str(path), f"holds {values.dtype}", allowed=f"floating-point numbers: {allowed}")
    values = values.float()
    if not bool(values.isfinite().all()):
        raise IntegrityError(str(path), "holds numbers that are not finite")
    return values


def _only(path: Path) -> Tensor:
    check_regular(path, f"{IMAGES}, {LABELS} and {RATE}; or {BUFFERS}")
    tensors = read_pt(path)
    if set(tensors) != {"top"}:
        raise IntegrityError(str(path), f"holds {len(tensors)} tensors in lists", allowed="one tensor")
    return tensors["top"]
