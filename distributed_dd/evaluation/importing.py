"""Other people's expert buffers and distilled sets, in our formats."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distributed_dd.durable import sha256_of
from distributed_dd.errors import IntegrityError, MissingInputError
from distributed_dd.family import plain
from distributed_dd.learning.classes import hard_logits
from distributed_dd.outer.ports import Progress
from distributed_dd.trajectories.foreign import read_pt
from distributed_dd.trajectories.forms import Full
from distributed_dd.trajectories.store import TrajectoryStore

BUFFERS, IMAGES, LABELS, RATE = "replay_buffer_*.pt", "images_best.pt", "labels_best.pt", "lr_best.pt"


def buffers_in(path: Path) -> list[Path]:
    """The expert buffers that ``path`` names: a file, or a folder's ``replay_buffer_*.pt`` by number."""
    if path.is_file():
        return [path]
    return sorted(path.glob(BUFFERS), key=lambda file: int(re.sub(r"\D", "", file.stem) or 0))


def import_experts(
    files: Sequence[Path], network: Any, layers: nn.Module, root: str | Path, progress: Progress
) -> TrajectoryStore:
    """Write the trajectories of the buffers as a store below ``root``; returns it.

    A buffer is a list of trajectories; a trajectory a list of checkpoints; a checkpoint a list of parameter
    tensors in ``layers.parameters()`` order.

    Raises:
        IntegrityError: shapes that are not the network's, trajectories of different lengths, or one whose
            checkpoints are all the same (saved without cloning on a CPU).
    """
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
            _check_shapes(f"{file}, trajectory {expert}, checkpoint {epoch}", values, shapes)
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


def _check_shapes(where: str, values: list[Tensor], shapes: list[tuple]) -> None:
    stored_shapes = [tuple(value.shape) for value in values]
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
        MissingInputError: a file is missing. IntegrityError: shapes do not fit, or numbers are not finite.
    """
    images, labels = _only(folder / IMAGES), _only(folder / LABELS)
    if images.ndim != 4 or tuple(images.shape[1:]) != image_shape:
        problem, allowed = f"images are {tuple(images.shape)}", f"(n, {', '.join(map(str, image_shape))})"
        raise IntegrityError(str(folder / IMAGES), problem, allowed=allowed)
    if labels.ndim == 1 and not labels.is_floating_point():
        in_range = len(labels) and int(labels.min()) >= 0 and int(labels.max()) < num_classes
        labels = hard_logits(labels.long(), num_classes) if in_range else labels
    if tuple(labels.shape) != (len(images), num_classes):
        problem, n = f"labels are {tuple(labels.shape)}", len(images)
        allowed = f"({n}, {num_classes}) logits, or ({n},) class numbers below {num_classes}"
        raise IntegrityError(str(folder / LABELS), problem, allowed=allowed)
    rate = _only(folder / RATE) if (folder / RATE).exists() else torch.tensor(0.01)
    if rate.numel() != 1 or not 0 < float(rate) < float("inf"):
        raise IntegrityError(str(folder / RATE), f"is {rate.tolist()}", allowed="one number above 0")
    if not bool(images.isfinite().all() and labels.isfinite().all()):
        raise IntegrityError(str(folder), "holds numbers that are not finite")
    classes = labels.argmax(1)
    order = classes.argsort(stable=True)
    return {
        "images": images.float()[order].contiguous(),
        "labels": labels.float()[order].contiguous(),
        "classes": classes[order].contiguous(),
        "learning_rate": rate.float().reshape(()).clone(),
    }


def _only(path: Path) -> Tensor:
    if not path.exists():
        allowed = f"{IMAGES}, {LABELS} and {RATE}; or {BUFFERS}"
        raise MissingInputError(str(path), "there is no such file", allowed=allowed)
    tensors = read_pt(path)
    if set(tensors) != {"top"}:
        raise IntegrityError(str(path), f"holds {len(tensors)} tensors in lists", allowed="one tensor")
    return tensors["top"]
