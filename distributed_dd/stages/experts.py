"""Train the experts that are missing, each an independent task, and keep their trajectories."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from distributed_dd.data import Images
from distributed_dd.data.splits import content_sha256
from distributed_dd.distillation.chance import generator
from distributed_dd.distillation.networks import Network, initialised
from distributed_dd.distillation.student import Student, flatten
from distributed_dd.durable import digest, locked
from distributed_dd.family import plain, require, setting
from distributed_dd.stages.footprint import footprint
from distributed_dd.stages.material import Material, device
from distributed_dd.stages.ports import Cluster, Progress
from distributed_dd.training.loop import Recipe, accuracy, train
from distributed_dd.trajectories.store import TrajectoryStore, check_fits, stacked


@dataclass(frozen=True)
class Experts(Recipe):
    """Networks trained on real data, whose trajectories are kept."""

    num_experts: int = setting("networks to train", 100)
    store: str | None = setting(
        "use the experts in this folder, such as imported ones, and train none", None, identity=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.num_experts >= 1, "num_experts", f"got {self.num_experts}", "1 or more")


@dataclass(frozen=True)
class ExpertJob:
    """What every expert task needs besides its number."""

    recipe: Experts
    network: Network
    seed: int
    train: Images
    validation: Images
    num_classes: int
    store: TrajectoryStore


def store_for(
    root: Path, recipe: Experts, network: Network, identity: dict[str, Any], seed: int
) -> TrajectoryStore:
    """The store of exactly these experts; their number is no part of its identity."""
    recipe_values = {k: v for k, v in plain(recipe).items() if k not in ("num_experts", "store")}
    everything = {
        **identity,
        "network": {"kind": type(network).__name__.lower(), **plain(network)},
        "recipe": recipe_values,
        "seed": seed,
    }
    return TrajectoryStore(root, digest(everything), everything)


def train_experts(job: ExpertJob, cluster: Cluster, progress: Progress) -> tuple[list[int], int]:
    """Train the missing experts; returns their numbers and the peak bytes of the tasks.

    Those already stored are not touched.
    """
    store, total, peak = job.store, job.recipe.num_experts, 0
    with locked(store.folder, "expert store"):
        missing = store.missing(total)
        if missing:
            with progress.bar("experts", total, total - len(missing)) as bar:
                for _, facts in cluster.map(train_expert, missing, job):
                    bar.advance(f"validation accuracy {100 * facts['validation_accuracy']:.1f} %")
                    peak = max(peak, facts["peak_memory_bytes"])
        store.write_manifest(total)
    return missing, peak


def train_expert(expert: int, job: ExpertJob) -> dict[str, Any]:
    """Train and store expert number ``expert``. The same number gives the same trajectory."""
    with footprint() as cost:
        checkpoints, accuracies = _trajectory(expert, job)
    facts = {**accuracies, "seconds": cost.seconds, "peak_memory_bytes": cost.peak_bytes}
    job.store.write(expert, stacked(checkpoints), facts)
    return facts


def _trajectory(expert: int, job: ExpertJob) -> tuple[list[Tensor], dict[str, float]]:
    where = device()
    images, targets = job.train.images, job.train.targets
    rng = generator(job.seed, "expert", expert, "start")
    shape = (images.shape[1], images.shape[2], images.shape[3])
    network = initialised(job.network, shape, job.num_classes, rng).to(where)
    Student(network)  # refuses networks that no student could follow, before hours are spent
    images, targets = images.to(where), targets.to(where)
    checkpoints = [flatten(network).cpu()]
    for _ in train(network, images, targets, job.recipe, (job.seed, "expert", expert)):
        checkpoints.append(flatten(network).cpu())
    judge = job.validation
    return checkpoints, {
        "train_accuracy": accuracy(network, images, targets),
        "validation_accuracy": accuracy(network, judge.images.to(where), judge.targets.to(where)),
    }


def identity_of(material: Material, preprocessing: Any) -> dict[str, Any]:
    """The data that experts were trained on, for the store's identity."""
    train = material.splits.train
    return {
        "data": material.splits.name,
        "data_sha256": material.splits.sha256,
        "num_train": len(train),
        "train_sha256": content_sha256(train.images, train.targets),
        "preprocessing": {"kind": type(preprocessing).__name__.lower(), **plain(preprocessing)},
    }


def check_complete(store: TrajectoryStore, num_experts: int) -> None:
    """Refuse a given store with fewer experts than are asked for.

    Raises:
        ConfigError: it holds fewer.
    """
    require(
        store.num_experts >= num_experts,
        "experts.num_experts",
        f"{num_experts} are asked for, {store.folder} holds {store.num_experts}",
        f"at most {store.num_experts}",
    )


def verify(store: TrajectoryStore, num_experts: int, num_parameters: int, num_epochs: int) -> None:
    """Open every expert once: checksum, parameters, epochs."""
    for expert in range(num_experts):
        check_fits(store.open(expert), str(store.file_of(expert)), num_parameters, num_epochs)
