"""From the folder of a distilled set to its evaluation on other networks."""

from pathlib import Path
from typing import Any

from torch import Tensor

from distributed_dd import config
from distributed_dd.backends.console import ConsoleProgress
from distributed_dd.data import AlreadyFitted
from distributed_dd.durable import locked
from distributed_dd.errors import ConfigError, IntegrityError, MissingInputError
from distributed_dd.family import build
from distributed_dd.stages.artefact import DistilledSet, load_distilled
from distributed_dd.stages.cross_architecture import CrossArchitecture, cross_evaluate
from distributed_dd.stages.evaluate import Entry
from distributed_dd.stages.experiment import Experiment
from distributed_dd.stages.material import Material, prepare
from distributed_dd.stages.ports import Cluster
from distributed_dd.stages.selection import Jury
from distributed_dd.trajectories.store import TrajectoryStore

PLACES = ("data", "experts")


def evaluate_set(
    folder: Path, overrides: list[str], cluster: Cluster, progress: ConsoleProgress
) -> tuple[Path, dict[str, Any]]:
    """Evaluate the set in a run folder, or in a ``distilled/`` folder that came alone.

    ``data.*`` says where the real images lie, ``experts=FOLDER`` where the expert stores are (beside the run
    folder otherwise); everything else is a setting of `CrossArchitecture`. Returns where the result was
    written, and the result.

    Raises:
        MissingInputError: no set, or no data. IntegrityError: the data are not those of the set.
    """
    distilled = load_distilled(folder)
    given = config.laid_over({}, overrides)
    settings = build(CrossArchitecture, {key: value for key, value in given.items() if key not in PLACES})
    experiment = _experiment(folder, distilled, given.get("data") or {})
    material = prepare(experiment.data, experiment.preprocessing, experiment.images_per_class, progress.say)
    made_with = distilled.manifest["dataset"]
    if material.splits.sha256 != made_with["sha256"]:
        raise IntegrityError(
            f"data set {material.splits.name}",
            f"is not the one the set was made from (SHA-256 {material.splits.sha256[:16]})",
            allowed=f"{made_with['name']}, SHA-256 {made_with['sha256'][:16]}",
            fix="set data.root or data.path",
        )
    material = Material(material.splits, AlreadyFitted(distilled.preprocessing))
    stores = given.get("experts") or str(folder.resolve().parent / "experts")
    soft = _soft_labels(stores, experiment, distilled, material, progress)
    entry = Entry(distilled, None, soft, experiment.images_per_class, experiment.seed)
    with locked(folder, "evaluation"):
        result = cross_evaluate(settings, experiment.evaluate, entry, material, cluster, progress, folder)
    return folder, result


def _experiment(folder: Path, distilled: DistilledSet, data: Any) -> Experiment:
    """The experiment that made the set: its run's configuration, or the one in the set's manifest."""
    resolved = folder / "resolved.yaml"
    values = config.read(resolved) if resolved.exists() else distilled.manifest["configuration"]
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
