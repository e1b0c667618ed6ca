"""From the folder of a distilled set or generator to its evaluation on other networks."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from distributed_dd import config
from distributed_dd.backends.local.console import ConsoleProgress
from distributed_dd.composition import Source, called
from distributed_dd.data import AlreadyFitted, Fitted
from distributed_dd.data.material import Material, prepare
from distributed_dd.errors import ConfigError, IntegrityError, MissingInputError
from distributed_dd.evaluation.artefact import MANIFEST, manifest_of
from distributed_dd.evaluation.cross_architecture import CrossArchitecture
from distributed_dd.evaluation.published_sets import FORMS, form_of
from distributed_dd.evaluation.real_images import at_typed_places, places_of
from distributed_dd.evaluation.report import heading
from distributed_dd.exchange import first_word, import_set
from distributed_dd.experiment import Experiment, experiment_of, identity_of
from distributed_dd.facets import world_of
from distributed_dd.family import build, plain
from distributed_dd.learning.networks import NETWORKS
from distributed_dd.locks import locked
from distributed_dd.nested import at, flattened
from distributed_dd.outer.ports import Cluster
from distributed_dd.places import shown_from_here

PLACES = ("data", "experts")
SHOWN = 3
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What networks reached that a set, or sets of a generator, trained: `evaluate` of a folder.

    Attributes:
        page: where it was written for people. title, header, lines: its table.
        report: all of it, as the record beside the page has it.
        rows: a plain dictionary for each network and row, accuracies in [0, 1].
    """

    page: Path
    title: str
    header: list[str] = field(repr=False)
    lines: list[list[str]] = field(repr=False)
    report: dict[str, Any] = field(repr=False)
    rows: list[dict[str, Any]] = field(repr=False)

    def __repr__(self) -> str:
        return f"Evaluated({self.title}, {shown_from_here(self.page)})"


def evaluate_folder(
    folder: Path,
    overrides: list[str],
    cluster: Cluster,
    progress: ConsoleProgress,
    known: Mapping[str, Any] = NOTHING,
) -> Evaluated:
    """Evaluate what a run folder holds, or a folder of a result that came alone.

    ``data.*`` says where the real images lie, ``experts=FOLDER`` where what runs share is (beside the run folder
    otherwise); everything else is a setting of the thing that lies there. ``known``: such keys below the overrides.

    Raises:
        MissingInputError: the folder holds no result, or the data are not there. IntegrityError: the data are not
            those that the result was made from.
    """
    typed = config.laid_over(known, overrides)
    rest = {key: value for key, value in typed.items() if key not in PLACES}
    experiment = _experiment(folder, typed.get("data") or {})
    elsewhere = experiment.method.elsewhere(folder)
    manifest, fitted = elsewhere.opened(folder)
    settings = build(elsewhere.settings, elsewhere.values(rest))
    per_class = experiment.images_per_class if elsewhere.num_real is None else elsewhere.num_real
    world = world_of(experiment, _material(experiment, manifest, fitted, per_class, progress))
    place = typed.get("experts") or str(folder.resolve().parent / "experts")
    world = world.with_shared(experiment.method.prelude_found(world, manifest, place, progress.say))
    with locked(folder, "evaluation"):
        result = elsewhere.evaluate(settings, world, cluster, progress, folder)
    name = heading(manifest["dataset"]["name"], manifest["method"], elsewhere.sizes(settings, manifest))
    networks = f"{settings.num_networks} network{'s' * (settings.num_networks != 1)}"
    if settings.protocol is not None:
        networks += f", protocol {result['recipe']['protocol']['kind']}"
    header, lines = elsewhere.table(result)
    return Evaluated(
        page=folder / elsewhere.page(settings),
        title=f"{name}: test accuracy, %, {networks}",
        header=header,
        lines=lines,
        report=result,
        rows=elsewhere.rows(result),
    )


def _material(
    experiment: Experiment,
    manifest: dict[str, Any],
    fitted: Fitted,
    per_class: int,
    progress: ConsoleProgress,
) -> Material:
    """The real images, which must be those that a set or generator was made from."""
    material = prepare(experiment.data, experiment.preprocessing, per_class, progress.say)
    made_with = manifest["dataset"]
    if material.splits.sha256 != made_with["sha256"]:
        raise IntegrityError(
            f"data set {material.splits.name}",
            f"is not the one the set was made from (SHA-256 {material.splits.sha256[:16]})",
            allowed=f"{made_with['name']}, SHA-256 {made_with['sha256'][:16]}",
            fix="set data.root or data.path",
        )
    return Material(material.splits, AlreadyFitted(fitted))


def _experiment(folder: Path, data: Any) -> Experiment:
    """The experiment that made what lies in ``folder``, as its manifest says.

    Where the data lie a person says; in a run folder, else, its own configuration. Neither a manifest nor that
    configuration, which may be a stranger's, has anything fetched.

    Raises:
        MissingInputError: the folder has no manifest. IntegrityError: the manifest is another run's.
    """
    if not isinstance(data, dict):
        raise ConfigError("data", f"expected keys such as data.root=FOLDER, got {data!r}")
    there = [path.parent for path in (folder / MANIFEST, *sorted(folder.glob(f"*/{MANIFEST}"))) if path.exists()]
    if not there:
        raise MissingInputError(str(folder), "holds no distilled set", allowed="a run folder, or its distilled/ folder")
    values, places = manifest_of(there[0])["configuration"], {}
    # For its owner alone: another person's run says nothing of its places.
    if os.access(resolved := folder / "resolved.yaml", os.R_OK):
        run = experiment_of(config.read(resolved), of_a_record=True)
        places = places_of(run.data)
        _refuse_another(_at(values, places), run, there[0])
    return _at(values, {**places, **data})


def _at(values: Mapping[str, Any], data: Mapping[str, Any]) -> Experiment:
    """A recorded experiment with its data at places that are not the record's."""
    return experiment_of({**values, "data": at_typed_places(values.get("data"), data)}, of_a_record=True)


def _refuse_another(recorded: Experiment, run: Experiment, result: Path) -> None:
    """Refuse a result that the run in whose folder it lies did not make.

    Raises:
        IntegrityError: the run's configuration is another than the result's.
    """
    own = identity_of(run)
    if different := [key for key, value in flattened(identity_of(recorded)) if at(own, key) != value]:
        raise IntegrityError(
            str(result),
            f"was not made by the run in {result.parent} ({', '.join(different[:SHOWN])} differ)",
            fix="put back what the run made, or evaluate the result's own folder",
        )


def is_set(path: Path) -> bool:
    """Whether ``path`` is meant as a set and not as a configuration.

    Raises:
        MissingInputError: ``path`` does not exist and does not end as a configuration does.
    """
    is_configuration = path.suffix in (".yaml", ".yml")
    if not path.exists() and not is_configuration:
        raise MissingInputError(str(path), "there is no such file or folder")
    return path.is_dir() or (not is_configuration and form_of(path) is not None)


def is_ours(path: Path) -> bool:
    """Whether a folder holds a result of this program, which needs no configuration beside it."""
    return (path / MANIFEST).exists() or any(path.glob(f"*/{MANIFEST}"))


def evaluate_published(
    source: Path, file: Source | None, overrides: list[str], cluster: Cluster, progress: ConsoleProgress
) -> Evaluated:
    """Evaluate a set that others published on the data, and by the recipe, of the configuration in ``file``.

    It is imported first, as ``import`` does. Overrides whose first word is a field of `CrossArchitecture` are of the
    evaluation, those of ``set.*`` say how the set is read, and the others are of the configuration. Networks are the
    configuration's one, unless others are typed.

    Raises:
        ConfigError: no configuration is named, or one for a result of this program. As `import_set` and
            `evaluate_folder`.
    """
    if is_ours(source):
        problem = "is a result of this program, and its manifest says how it is evaluated"
        raise ConfigError(str(source), problem, fix=f"leave {called(file or {})} out")
    if file is None:
        if form_of(source) is None:
            raise MissingInputError(
                str(source), "holds no distilled set", allowed="; ".join(form.words for form in FORMS)
            )
        problem = "is no result of this program: which data and recipe is it to be judged on?"
        fix = f"name a configuration: distributed-dd evaluate {source} CONFIG.yaml"
        raise ConfigError(str(source), problem, fix=fix)
    fields = {field.name for field in dataclasses.fields(CrossArchitecture)}
    own = [override for override in overrides if first_word(override) in fields]
    rest = [override for override in overrides if override not in own]
    folder, experiment = import_set(source, file, rest, None, progress)
    progress.say(f"the set is in {folder}")
    network = {"kind": NETWORKS.kind_of(experiment.network), **plain(experiment.network)}
    controls = list(experiment.evaluate.controls)
    known = {"networks": [network], "controls": controls, "data": places_of(experiment.data)}
    return evaluate_folder(folder, own, cluster, progress, known)
