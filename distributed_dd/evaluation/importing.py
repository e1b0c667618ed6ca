"""Other people's expert buffers in our format; their sets are read by `published_sets`."""

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
