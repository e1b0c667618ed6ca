"""From the folder of a distilled set or generator to its evaluation on other networks."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed_dd import config
from distributed_dd.backends.local.console import ConsoleProgress
from distributed_dd.data import AlreadyFitted, Fitted
from distributed_dd.data.material import Material, prepare
from distributed_dd.errors import ConfigError, IntegrityError, MissingInputError
from distributed_dd.evaluation.artefact import MANIFEST, at_typed_places, manifest_of, places_of
from distributed_dd.experiment import Experiment, experiment_of, identity_of
from distributed_dd.facets import world_of
from distributed_dd.family import build
from distributed_dd.locks import locked
from distributed_dd.nested import at, flattened
from distributed_dd.outer.ports import Cluster

PLACES = ("data", "experts")
SHOWN = 3


@dataclass(frozen=True)
class Evaluated:
    """Where the result was written for people, and its table."""

    page: Path
    header: list[str]
    lines: list[list[str]]


def evaluate_folder(folder: Path, overrides: list[str], cluster: Cluster, progress: ConsoleProgress) -> Evaluated:
    """Evaluate what a run folder holds, or a folder of a result that came alone.

    ``data.*`` says where the real images lie, ``experts=FOLDER`` where what runs share is (beside the run folder
    otherwise); everything else is a setting of the thing that lies there.

    Raises:
        MissingInputError: the folder holds no result, or the data are not there. IntegrityError: the data are not
            those that the result was made from.
    """
    typed = config.laid_over({}, overrides)
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
    return Evaluated(folder / elsewhere.page, *elsewhere.table(result))


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
    if not path.exists() and path.suffix not in (".yaml", ".yml"):
        raise MissingInputError(str(path), "there is no such file or folder")
    return path.is_dir()
