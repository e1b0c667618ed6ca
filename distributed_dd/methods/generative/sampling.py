"""Sets sampled from a distilled generator, as ordinary artefacts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed_dd.durable import is_half_written, write_bytes
from distributed_dd.evaluation import artefact
from distributed_dd.evaluation.artefact import load_distilled
from distributed_dd.evaluation.preview import preview_png
from distributed_dd.family import require, setting
from distributed_dd.locks import FILES, locked
from distributed_dd.methods.generative.artefact import FOLDER, folder_of, load_generator
from distributed_dd.methods.generative.source import frozen
from distributed_dd.outer.ports import Progress
from distributed_dd.outer.work import size


@dataclass(frozen=True)
class Sampling:
    """Settings of a sample."""

    images_per_class: int = setting("images of every class", at_least=1)
    seed: int = setting("seed of the noise", 0)


def write_sample(asked: Sampling, source: Path, to: Path | None, progress: Progress) -> None:
    """Write a frozen set of the generator in ``source``; by default into ``samples/`` beside it.

    Raises:
        MissingInputError: ``source`` holds no generator. ConfigError: ``to`` holds another set or other files.
    """
    generator = load_generator(source)
    to = to or _home(source) / f"ipc{asked.images_per_class}-seed{asked.seed}"
    manifest = generator.sample_manifest(asked.images_per_class, asked.seed)
    _refuse_foreign(to, manifest)
    with locked(to, "sample"):
        if (to / artefact.MANIFEST).exists():
            load_distilled(to)  # verifies
            progress.say(f"already in {to}; nothing was done again")
            return
        images = generator.source(asked.images_per_class, asked.seed)
        tensors = frozen(images, manifest["learning_rate"])
        pixels = generator.preprocessing.invert(tensors["images"])
        title = f"{asked.images_per_class} images per class, seed {asked.seed}"
        names = tuple(manifest["class_names"])
        png = preview_png(None, pixels, tensors["classes"], names, title, "generated")
        write_bytes(to / artefact.PREVIEW, png)
        artefact.write_artefact(to, tensors, None, generator.preprocessing, manifest)
    num_bytes = tensors["images"].nbytes
    progress.say(f"{len(tensors['images'])} images, {size(num_bytes)}; the generator takes {size(generator.num_bytes)}")
    progress.say(f"preview:  {to / artefact.PREVIEW}")
    progress.say(f"output:   {to}")


def _refuse_foreign(to: Path, manifest: dict[str, Any]) -> None:
    """Refuse a folder that holds something else.

    Raises:
        ConfigError: the folder holds another set or other files.
    """
    there = [path for path in to.glob("*") if not is_half_written(path.name)] if to.is_dir() else []
    known = to / artefact.MANIFEST
    record = artefact.manifest_of(to) if known.exists() else {}
    same = all(record.get(key) == manifest[key] for key in ("sampled", "images_per_class"))
    begun = {artefact.MANIFEST, artefact.PREVIEW, artefact.SET, *FILES}
    require(
        same if record else {path.name for path in there} <= begun,
        "--to",
        f"{to} holds {'another set' if record else 'other files'}",
        "a new or empty folder",
    )


def _home(path: Path) -> Path:
    """``samples/`` of the run folder that holds the generator."""
    folder = folder_of(path)
    run = folder.parent if folder is not None and folder.name == FOLDER else path
    return run / "samples"
