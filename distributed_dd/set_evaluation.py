"""From the folder of a distilled set or generator to its evaluation on other networks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from distributed_dd import config
from distributed_dd.backends.console import ConsoleProgress
from distributed_dd.data import AlreadyFitted, Fitted
from distributed_dd.durable import locked
from distributed_dd.errors import ConfigError, IntegrityError, MissingInputError
from distributed_dd.family import build
from distributed_dd.stages import cross_architecture, generator_evaluation
from distributed_dd.stages.artefact import DistilledSet, load_distilled
from distributed_dd.stages.cross_architecture import CrossArchitecture, cross_evaluate
from distributed_dd.stages.evaluate import Entry
from distributed_dd.stages.experiment import Experiment
from distributed_dd.stages.generator_artefact import folder_of, load_generator
from distributed_dd.stages.generator_evaluation import GeneratorEvaluation, evaluate_generator
from distributed_dd.stages.material import Material, prepare
from distributed_dd.stages.ports import Cluster
from distributed_dd.stages.selection import Jury
from distributed_dd.trajectories.store import TrajectoryStore

PLACES = ("data", "experts")


@dataclass(frozen=True)
class Evaluated:
    """Where the result was written for people, and its table."""

    page: Path
    header: list[str]
    lines: list[list[str]]


def evaluate_folder(
    folder: Path, overrides: list[str], cluster: Cluster, progress: ConsoleProgress
) -> Evaluated:
    """Evaluate what a run folder holds, or a ``generator/`` or ``distilled/`` folder that came alone.

    ``data.*`` says where the real images lie, ``experts=FOLDER`` where the expert stores are (beside the run
    folder otherwise); everything else is a setting of `GeneratorEvaluation` or `CrossArchitecture`.

    Raises:
        MissingInputError: nothing to evaluate, or no data. IntegrityError: the data are not those it was made
            from.
    """
    given = config.laid_over({}, overrides)
    rest = {key: value for key, value in given.items() if key not in PLACES}
    data = given.get("data") or {}
    if folder_of(folder) is not None:
        result = _evaluate_generator(folder, rest, data, cluster, progress)
        return Evaluated(folder / generator_evaluation.PAGE, *generator_evaluation.table(result))
    stores = given.get("experts") or str(folder.resolve().parent / "experts")
    result = _evaluate_set(folder, rest, data, stores, cluster, progress)
    return Evaluated(folder / cross_architecture.PAGE, *cross_architecture.table(result))


def _evaluate_generator(
    folder: Path, values: dict[str, Any], data: Any, cluster: Cluster, progress: ConsoleProgress
) -> dict[str, Any]:
    made = load_generator(folder)
    if isinstance(values.get("images_per_class"), int):
        values = {**values, "images_per_class": [values["images_per_class"]]}
    settings: GeneratorEvaluation = build(GeneratorEvaluation, values)
    experiment = _experiment(folder, made.manifest, data)
    material = _material(experiment, made.manifest, made.preprocessing, 1, progress)
    with locked(folder, "evaluation"):
        return evaluate_generator(
            settings, experiment.evaluate, made, experiment.seed, material, cluster, progress, folder
        )


def _evaluate_set(
    folder: Path, values: dict[str, Any], data: Any, stores: str, cluster: Cluster, progress: ConsoleProgress
) -> dict[str, Any]:
    distilled = load_distilled(folder)
    settings: CrossArchitecture = build(CrossArchitecture, values)
    experiment = _experiment(folder, distilled.manifest, data)
    number = experiment.images_per_class
    material = _material(experiment, distilled.manifest, distilled.preprocessing, number, progress)
    soft = _soft_labels(stores, experiment, distilled, material, progress)
    entry = Entry(distilled, None, soft, number, experiment.seed)
    with locked(folder, "evaluation"):
        return cross_evaluate(settings, experiment.evaluate, entry, material, cluster, progress, folder)


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


def _experiment(folder: Path, manifest: dict[str, Any], data: Any) -> Experiment:
    """The experiment that made it: its run's configuration, or the one in the manifest."""
    resolved = folder / "resolved.yaml"
    values = config.read(resolved) if resolved.exists() else manifest["configuration"]
    if not isinstance(data, dict):
        raise ConfigError("data", f"expected keys such as data.root=FOLDER, got {data!r}")
    return build(Experiment, {**values, "data": {**values["data"], **data}})


def _soft_labels(
    stores: str,
    experiment: Experiment,
    distilled: DistilledSet,
    material: Material,
    progress: ConsoleProgress,
) -> Tensor | None:
    """The experts' labels of the training images, or None, said, where the experts are not at hand."""
    e, made_with = experiment, distilled.manifest["experts"]
    if made_with is None:
        return None  # of a generator: there never were experts
    store = TrajectoryStore.below(stores, {}, made_with["store"])
    if store.missing(e.experts.num_experts):
        progress.say(
            f"note: no experts in {store.folder}, so random real images with soft labels and the scores that "
            "need them are left out (experts=FOLDER says where experts are)"
        )
        return None
    jury = Jury(store, e.experts.num_experts, e.network, material.train, material.splits.num_classes)
    return jury.soft_labels(e.matching.labels)


def is_set(path: Path) -> bool:
    """Whether ``path`` is meant as a set and not as a configuration.

    Raises:
        MissingInputError: it looks like a folder that is not there.
    """
    if not path.exists() and path.suffix not in (".yaml", ".yml"):
        raise MissingInputError(str(path), "there is no such file or folder")
    return path.is_dir()
