"""Import and export: other people's files in, files for other programs out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from distributed_dd import config
from distributed_dd.backends.local.console import ConsoleProgress
from distributed_dd.composition import Source, called, cluster_from, experiment_from
from distributed_dd.data import Facts, Splits
from distributed_dd.data.material import prepare
from distributed_dd.data.splits import content_sha256
from distributed_dd.durable import digest, read_json, write_bytes
from distributed_dd.errors import ConfigError, MissingInputError
from distributed_dd.evaluation import artefact, exporting, importing
from distributed_dd.evaluation.ddranking_export import as_ddranking
from distributed_dd.evaluation.hub_export import HubExport, as_hub
from distributed_dd.evaluation.preview import preview_png
from distributed_dd.evaluation.published_sets import FORMS, Wanted, form_of, read_published
from distributed_dd.evaluation.published_sets.fitting import fit_to
from distributed_dd.evaluation.published_sets.foreign_set import SetReading
from distributed_dd.experiment import Experiment, identity_of
from distributed_dd.experiment_run import Run
from distributed_dd.facets import described
from distributed_dd.family import build, did_you_mean
from distributed_dd.outer.set_settings import SetSettings
from distributed_dd.places import displayable, name_in_path
from distributed_dd.records import seal_of

HUB = "hub"


def import_from(
    source: Path, file: Path, overrides: list[str], to: Path | None, progress: ConsoleProgress
) -> tuple[str, bool]:
    """Import expert buffers or a distilled set; ``file`` is the configuration they belong to.

    Returns the place of the experts, or the folder of the set; and whether it is a set.

    Raises:
        MissingInputError: ``source`` holds neither expert buffers nor a set.
    """
    if form_of(source) is not None:
        return str(import_set(source, file, overrides, to, progress)[0]), True
    e = experiment_from(file, overrides)

    def facts() -> Facts:
        return e.data.facts or e.data.load(progress.say).facts

    place = e.method.imported(source, to, Path(e.output), e.network, facts, progress)
    if place is None:
        allowed = f"{importing.BUFFERS} for a method with experts; {'; '.join(form.words for form in FORMS)}"
        raise MissingInputError(
            str(source), "holds neither what runs of this method share nor a distilled set", allowed=allowed
        )
    return place, False


def import_set(
    source: Path, file: Source, overrides: list[str], to: Path | None, progress: ConsoleProgress
) -> tuple[Path, Experiment]:
    """A set of others as a folder of ours, for the data, network and recipe of the configuration in ``file``.

    Args:
        file: the configuration, or its plain values; its own ``set`` is of sets that are distilled, and left out with
            a note.
        overrides: of the configuration; ``set.*`` of them say how the set is read (`SetReading`).
        to: the set's folder; by default one below the configuration's output.

    Raises:
        ConfigError: the configuration is wrong, another number of images per class, or something that only a person
            can say of the set. MissingInputError, IntegrityError: the set is not what its form says.
    """
    of_set = [override for override in overrides if first_word(override) == "set"]
    reading = build(SetReading, _as_text(config.laid_over({}, of_set).get("set") or {}), "set")
    e = experiment_from(file, [override for override in overrides if override not in of_set])
    e = _of_others(e, file, progress)
    material = prepare(e.data, e.preprocessing, 1, progress.say)
    splits = material.splits
    wanted = Wanted(image_shape=splits.image_shape, num_classes=splits.num_classes, reading=reading)
    foreign = read_published(source, wanted)
    fitted_set = fit_to(foreign, reading, splits, material.fitted, progress.say)
    tensors = fitted_set.tensors
    _check_counts(torch.bincount(tensors["classes"], minlength=splits.num_classes).tolist(), e, splits)
    facts: dict[str, Any] = {"best_step": None, "best_accuracy": None, "imported": foreign.sources(source)}
    manifest = described(e, material, "imported", None, facts) | {"method": "imported"}
    if "learning_rate" not in tensors:
        rate = e.evaluate.optimizer.learning_rate
        progress.say(f"the set brings no learning rate: the recipe's is used, {rate:g}")
        manifest["learning_rate"] = manifest["evaluation"]["learning_rate"] = rate
    content = content_sha256(tensors["images"], tensors["labels"])
    mark = digest({"set": content, **identity_of(e), "data_sha256": splits.sha256})[:8]
    name = f"{name_in_path(splits.name)}-imported-ipc{e.images_per_class}-{mark}"
    folder = to or Path(e.output) / name / "distilled"
    png = preview_png(
        None, fitted_set.pixels, tensors["classes"], splits.class_names, f"imported from {source.resolve().name}"
    )
    write_bytes(folder / artefact.PREVIEW, png)
    artefact.write_artefact(folder, tensors, None, material.fitted, manifest)
    return (folder if to else folder.parent), e


def _of_others(experiment: Experiment, file: Source, progress: ConsoleProgress) -> Experiment:
    """The experiment without what it says of a set that is distilled: others' images are taken as they are."""
    e, plain_set = experiment, SetSettings()
    said = [f"set.{name}" for name in ("form", "frozen") if getattr(e.set, name) != getattr(plain_set, name)]
    if said:
        name = file.name if isinstance(file, Path) else called(file)
        progress.say(
            f"note: {' and '.join(said)} of {name} is left out: a set of others is kept as its files hold it, "
            "in pixels, and images_per_class counts its pictures"
        )
    return replace(e, set=plain_set)


def first_word(override: str) -> str:
    """The group or field that an override is of."""
    return override.partition("=")[0].partition(".")[0]


def _as_text(reading: Any) -> Any:
    """Names of classes that look like numbers, as text."""
    if isinstance(reading, dict) and isinstance(reading.get("class_names"), list):
        return {**reading, "class_names": [str(name) for name in reading["class_names"]]}
    return reading


def _check_counts(counts: list[int], e: Experiment, splits: Splits) -> None:
    """Refuse a set that holds another number of images of a class than the configuration says.

    Raises:
        ConfigError: it does.
    """
    least, most = min(counts), max(counts)
    if least != most:
        few, many = splits.class_names[counts.index(least)], splits.class_names[counts.index(most)]
        problem = (
            f"is {e.images_per_class}, the set holds {least} to {most} of each class: {least} of "
            f"{displayable(few)!r}, {most} of {displayable(many)!r}"
        )
        fix = "bring a set with as many images of every class, then images_per_class=N, its number"
        raise ConfigError("images_per_class", problem, fix=fix)
    if least != e.images_per_class:
        problem = f"is {e.images_per_class}, the set holds {least} of each class"
        raise ConfigError("images_per_class", problem, fix=f"images_per_class={least}")


def export_to(source: Path, overrides: list[str], form: str, to: Path, progress: ConsoleProgress) -> Path:
    """Export the set in a folder, or what runs of a configuration share, such as experts; returns ``to``.

    ``hub.*`` among the overrides are settings of the export to the hub.

    Raises:
        ConfigError: the format is not known.
    """
    if source.is_dir():
        formats = {**exporting.FORMATS, "ddranking": as_ddranking, HUB: None}
        if form not in formats:
            hint = did_you_mean(form, formats)
            raise ConfigError("--as", f"unknown {form!r}{hint}", allowed=", ".join(formats))
        write, distilled = formats[form], artefact.load_distilled(source)
        if write is not None:
            write(distilled, to)
        else:
            _to_hub(source, distilled, overrides, to, progress)
        return to
    run = Run(experiment=experiment_from(source, overrides), cluster=cluster_from(None), progress=progress)
    if run.prelude is None:
        problem = f"{run.method.name} makes nothing beforehand that could be exported"
        raise ConfigError(str(source), problem, fix="distributed-dd export RUN_FOLDER")
    run.prelude.export(form, to, progress)
    return to


def _to_hub(
    source: Path, distilled: artefact.DistilledSet, overrides: list[str], to: Path, progress: ConsoleProgress
) -> None:
    values = config.laid_over({}, overrides)
    if unknown := [key for key in values if key != HUB]:
        raise ConfigError(unknown[0], f"unknown key{did_you_mean(unknown[0], [HUB])}", allowed="hub.*")
    settings = build(HubExport, values.get(HUB) or {}, HUB)
    if settings.license == "unknown":
        progress.say("the card says that the licence of the source data is unknown; hub.license=.. names it")
    as_hub(distilled, _report_beside(source, distilled), settings, to)


def _report_beside(source: Path, distilled: artefact.DistilledSet) -> dict[str, Any] | None:
    """The report of the run in or around ``source``, where it is about this very set."""
    for folder in (source, source.parent):
        if (path := folder / "report.json").exists():
            report = read_json(path)
            if isinstance(report, dict) and report.get("result") == seal_of(distilled.manifest):
                return report
    return None
