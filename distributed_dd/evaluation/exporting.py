"""Distilled sets and experts in formats that other programs read."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from distributed_dd.data.reading import place_of, shown
from distributed_dd.durable import write_bytes, write_text
from distributed_dd.errors import UserError
from distributed_dd.evaluation.distilled_set import DistilledSet
from distributed_dd.evaluation.importing import IMAGES, LABELS, RATE
from distributed_dd.outer.ports import Progress
from distributed_dd.places import name_in_path
from distributed_dd.trajectories.store import TrajectoryStore

EXPERTS_PER_FILE = 10


def as_pt(distilled: DistilledSet, folder: Path) -> None:
    """``images_best.pt``, ``labels_best.pt`` (logits), ``lr_best.pt``, as the field's code reads them."""
    rate = torch.tensor(distilled.learning_rate)
    for name, tensor in ((IMAGES, distilled.images), (LABELS, distilled.labels), (RATE, rate)):
        write_bytes(folder / name, _saved(tensor.clone()))


def as_images(distilled: DistilledSet, folder: Path) -> None:
    """``<class>/NNNN.png`` in natural colours: preprocessing inverted, values outside [0, 1] cut.

    Pictures alone lose what the set learned beside them: ``metadata.jsonl`` has a line for each, with its class and its
    soft label, as the ``imagefolder`` loader of Hugging Face reads it, and ``README.md`` says how to use both.

    Raises:
        UserError: the folder holds other pictures already, which would be taken for this set's.
    """
    from torchvision.transforms.v2.functional import to_pil_image

    folders = folders_of(distilled.manifest["class_names"])
    count = dict.fromkeys(range(len(folders)), 0)
    pictures: dict[Path, Tensor] = {}
    lines = []
    labels = zip(
        distilled.targets.tolist(), distilled.labels.tolist(), distilled.labels.softmax(1).tolist(), strict=True
    )
    for pixels, (number, logits, shares) in zip(pixels_of(distilled), labels, strict=True):
        name = f"{folders[number]}/{count[number]:04d}.png"
        pictures[folder / name] = pixels
        about = {"class": distilled.manifest["class_names"][number], "label": number}
        lines.append({"file_name": name, **about, "soft_label": shares, "label_logits": logits})
        count[number] += 1
    if others := sorted({*folder.glob("*/*.png")} - {*pictures}):
        raise UserError(place_of(others[0]), "is no picture of this set", fix="choose an empty folder with --to")
    for path, pixels in pictures.items():
        buffer = io.BytesIO()
        to_pil_image(pixels).save(buffer, "PNG")
        write_bytes(path, buffer.getvalue())
    write_text(folder / "metadata.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    write_text(folder / "README.md", _about_pictures(distilled))


def _about_pictures(distilled: DistilledSet) -> str:
    manifest = distilled.manifest
    names = ", ".join(shown([name]) for name in manifest["class_names"])
    return f"""# {manifest["dataset"]["name"]}, distilled by {manifest["method"]}

{len(distilled.images)} pictures of {len(manifest["class_names"])} classes, one folder each: {names}.

`metadata.jsonl` has a line for each picture: `file_name`, `class`, `label` (its number), `soft_label`
(probabilities) and `label_logits`. Train on `soft_label` with cross-entropy and SGD of learning rate
{distilled.learning_rate:.6g}: that is what was learned.

The pictures are for people: rounded to bytes, and cut to their range. `distributed-dd export --as npz` has the
exact numbers.
"""


def folders_of(class_names: Sequence[str]) -> list[str]:
    """A folder's name for each class: no two are one, on disks either that take ``Cat`` and ``cat`` for one."""
    folders: list[str] = []
    taken: set[str] = set()
    for number, name in enumerate(class_names):
        folder = name_in_path(name)
        while folder.casefold() in taken:
            folder = f"{folder}-class{number}"
        taken.add(folder.casefold())
        folders.append(folder)
    return folders


def as_npz(distilled: DistilledSet, folder: Path) -> None:
    """``distilled.npz``: images as networks see them, which ``values`` says, pixels uint8, label logits, classes.

    Where a regression learned them, its ``targets`` too.
    """
    buffer = io.BytesIO()
    more: dict[str, Any] = {} if distilled.learned_targets is None else {"targets": distilled.learned_targets.numpy()}
    numpy.savez_compressed(
        buffer,
        images=distilled.images.numpy(),
        pixels=pixels_of(distilled).numpy(),
        labels=distilled.labels.numpy(),
        classes=distilled.targets.numpy(),
        learning_rate=numpy.float32(distilled.learning_rate),
        class_names=numpy.array(distilled.manifest["class_names"]),
        values=numpy.array("seen"),
        **more,
    )
    write_bytes(folder / "distilled.npz", buffer.getvalue())


def as_stored(distilled: DistilledSet, folder: Path) -> None:
    """``stored.npz``: what the artefact keeps in place of the images, ``stored.*``, and what those share, ``form.*``.

    With label logits, classes, ``targets`` where there are some, and ``form``: the form's settings and how it is
    decoded, as JSON.
    """
    manifest = distilled.manifest
    form = manifest.get("form") or {"settings": {"kind": "pixels"}, "images": "stored.images are the images"}
    arrays: dict[str, Any] = {f"stored.{name}": tensor.numpy() for name, tensor in distilled.stored.items()}
    arrays |= {f"form.{name}": tensor.numpy() for name, tensor in distilled.codec.tensors().items()}
    arrays |= {name: tensor.numpy() for name, tensor in distilled.tensors.items() if name != "images"}
    arrays["learning_rate"] = numpy.float32(distilled.learning_rate)
    arrays["class_names"], arrays["form"] = numpy.array(manifest["class_names"]), numpy.array(json.dumps(form))
    buffer = io.BytesIO()
    numpy.savez_compressed(buffer, **arrays)
    write_bytes(folder / "stored.npz", buffer.getvalue())


FORMATS: dict[str, Callable[[DistilledSet, Path], None]] = {
    "pt": as_pt,
    "images": as_images,
    "npz": as_npz,
    "stored": as_stored,
}


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


def pixels_of(distilled: DistilledSet) -> Tensor:
    """Bytes (n, C, H, W) for people: preprocessing inverted, rounded, cut to [0, 1]."""
    natural = distilled.preprocessing.invert(distilled.images)
    return (natural.clamp(0, 1) * 255).round().to(torch.uint8)


def _saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()
