"""Distilled sets and experts in formats that other programs read."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import to_pil_image

from distributed_dd.durable import write_bytes
from distributed_dd.evaluation.artefact import DistilledSet
from distributed_dd.evaluation.importing import IMAGES, LABELS, RATE
from distributed_dd.outer.ports import Progress
from distributed_dd.trajectories.store import TrajectoryStore

EXPERTS_PER_FILE = 10


def as_pt(distilled: DistilledSet, folder: Path) -> None:
    """``images_best.pt``, ``labels_best.pt`` (logits), ``lr_best.pt``, as the field's code reads them."""
    rate = torch.tensor(distilled.learning_rate)
    for name, tensor in ((IMAGES, distilled.images), (LABELS, distilled.labels), (RATE, rate)):
        write_bytes(folder / name, _saved(tensor.clone()))


def as_images(distilled: DistilledSet, folder: Path) -> None:
    """``<class>/NNNN.png`` in natural colours: preprocessing inverted, values outside [0, 1] cut."""
    names = distilled.manifest["class_names"]
    count = dict.fromkeys(range(len(names)), 0)
    for pixels, number in zip(_pixels(distilled), distilled.classes.tolist(), strict=True):
        buffer = io.BytesIO()
        to_pil_image(pixels).save(buffer, "PNG")
        safe = names[number].replace("/", "_")
        write_bytes(folder / safe / f"{count[number]:04d}.png", buffer.getvalue())
        count[number] += 1


def as_npz(distilled: DistilledSet, folder: Path) -> None:
    """``distilled.npz``: images as networks see them, pixels uint8, label logits, classes, class names."""
    buffer = io.BytesIO()
    numpy.savez_compressed(
        buffer,
        images=distilled.images.numpy(),
        pixels=_pixels(distilled).numpy(),
        labels=distilled.labels.numpy(),
        classes=distilled.classes.numpy(),
        learning_rate=numpy.float32(distilled.learning_rate),
        class_names=numpy.array(distilled.manifest["class_names"]),
    )
    write_bytes(folder / "distilled.npz", buffer.getvalue())


FORMATS: dict[str, Callable[[DistilledSet, Path], None]] = {"pt": as_pt, "images": as_images, "npz": as_npz}


def experts_as_pt(
    store: TrajectoryStore, num_experts: int, layers: nn.Module, folder: Path, progress: Progress
) -> None:
    """``replay_buffer_N.pt`` of ten experts each: lists of checkpoints, each a list of parameter tensors."""
    shapes = [p.shape for p in layers.parameters()]
    sizes = [shape.numel() for shape in shapes]
    numbers = torch.arange(num_experts).split(EXPERTS_PER_FILE)
    with progress.bar("export", len(numbers)) as bar:
        for number, experts in enumerate(numbers):
            buffer: list[Any] = []
            for expert in experts.tolist():
                trajectory = store.open(expert)
                epochs = range(int(trajectory.num_epochs) + 1)
                thetas = (trajectory.checkpoint(epoch) for epoch in epochs)
                buffer.append([_parameters(theta, sizes, shapes) for theta in thetas])
            write_bytes(folder / f"replay_buffer_{number}.pt", _saved(buffer))
            bar.advance()


def _parameters(theta_P: Tensor, sizes: list[int], shapes: list[torch.Size]) -> list[Tensor]:
    return [part.reshape(shape).clone() for part, shape in zip(theta_P.split(sizes), shapes, strict=True)]


def _pixels(distilled: DistilledSet) -> Tensor:
    natural = distilled.preprocessing.invert(distilled.images)
    return (natural.clamp(0, 1) * 255).round().to(torch.uint8)


def _saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()
