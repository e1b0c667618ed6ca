"""Import and export: other people's files in, files for other programs out."""

from pathlib import Path
from typing import Any

import torch

from distributed_dd.backends.local.console import ConsoleProgress
from distributed_dd.composition import cluster_from, experiment_from
from distributed_dd.data import Facts
from distributed_dd.data.material import prepare
from distributed_dd.durable import sha256_of, write_bytes
from distributed_dd.errors import ConfigError, MissingInputError
from distributed_dd.evaluation import artefact, exporting, importing
from distributed_dd.evaluation.preview import preview_png
from distributed_dd.experiment import Experiment
from distributed_dd.facets import described
from distributed_dd.family import did_you_mean
from distributed_dd.run import Run


def import_from(
    source: Path, file: Path, overrides: list[str], to: Path | None, progress: ConsoleProgress
) -> tuple[str, bool]:
    """Import expert buffers or a distilled set; ``file`` is the configuration they belong to.

    Returns the place of the experts, or the folder of the set; and whether it is a set.

    Raises:
        MissingInputError: ``source`` holds neither expert buffers nor a set.
    """
    e = experiment_from(file, overrides)
    if source.is_dir() and (source / importing.IMAGES).exists():
        return str(_import_set(source, e, to, progress)), True

    def facts() -> Facts:
        return e.data.facts or e.data.load(progress.say).facts

    place = e.method.imported(source, to, Path(e.output), e.network, facts, progress)
    if place is None:
        allowed = f"{importing.BUFFERS} for a method with experts, or {importing.IMAGES} and {importing.LABELS}"
        raise MissingInputError(
            str(source), "holds neither what runs of this method share nor a distilled set", allowed=allowed
        )
    return place, False


def _import_set(source: Path, e: Experiment, to: Path | None, progress: ConsoleProgress) -> Path:
    material = prepare(e.data, e.preprocessing, 1, progress.say)
    splits = material.splits
    tensors = importing.read_set(source, splits.image_shape, splits.num_classes)
    counts = sorted(set(torch.bincount(tensors["classes"], minlength=splits.num_classes).tolist()))
    if counts != [e.images_per_class]:
        held = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
        raise ConfigError("images_per_class", f"is {e.images_per_class}, the set holds {held} of each class")
    names = sorted((importing.IMAGES, importing.LABELS, importing.RATE))
    sources = {name: sha256_of(source / name) for name in names if (source / name).exists()}
    facts: dict[str, Any] = {"best_step": None, "best_accuracy": None, "imported": sources}
    manifest = described(e, material, "imported", None, facts)
    folder = to or Path(e.output) / f"{splits.name}-imported-ipc{e.images_per_class}" / "distilled"
    pixels = material.fitted.invert(tensors["images"])
    png = preview_png(None, pixels, tensors["classes"], splits.class_names, f"imported from {source.name}")
    write_bytes(folder / artefact.PREVIEW, png)
    artefact.write_artefact(folder, tensors, None, material.fitted, manifest)
    return folder


def export_to(source: Path, overrides: list[str], form: str, to: Path, progress: ConsoleProgress) -> Path:
    """Export the set in a folder, or what runs of a configuration share, such as experts; returns ``to``.

    Raises:
        ConfigError: the format is not known.
    """
    if source.is_dir():
        if form not in exporting.FORMATS:
            hint = did_you_mean(form, exporting.FORMATS)
            raise ConfigError("--as", f"unknown {form!r}{hint}", allowed=", ".join(exporting.FORMATS))
        exporting.FORMATS[form](artefact.load_distilled(source), to)
        return to
    run = Run(experiment=experiment_from(source, overrides), cluster=cluster_from(None), progress=progress)
    if run.prelude is None:
        problem = f"{run.method.name} makes nothing beforehand that could be exported"
        raise ConfigError(str(source), problem, fix="distributed-dd export RUN_FOLDER")
    run.prelude.export(form, to, progress)
    return to
