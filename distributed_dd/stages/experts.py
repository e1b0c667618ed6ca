"""Train the experts that are missing, each an independent task, and keep their trajectories."""

import socket
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from distributed_dd.data import Images
from distributed_dd.data.splits import content_sha256
from distributed_dd.distillation.chance import generator
from distributed_dd.distillation.networks import Network, initialised
from distributed_dd.distillation.student import FlatNetwork, refuse_impure
from distributed_dd.errors import DivergedError
from distributed_dd.family import choice, identity, plain, require, setting
from distributed_dd.stages.difficulty import ranking
from distributed_dd.stages.footprint import footprint
from distributed_dd.stages.material import Material, device
from distributed_dd.stages.ports import Cluster, Progress
from distributed_dd.stages.watch import watched
from distributed_dd.training.curriculum import CURRICULA, Curriculum, Everything
from distributed_dd.training.loop import Recipe, Training, accuracy
from distributed_dd.trajectories.epochs import format_epochs, parse_epochs, same_epoch
from distributed_dd.trajectories.forms import FORMS, Form, Full
from distributed_dd.trajectories.store import TrajectoryStore
from distributed_dd.trajectories.trajectory import check_fits
from distributed_dd.trajectories.unfinished import Reached


@dataclass(frozen=True)
class Experts(Recipe):
    """Networks trained on real data, whose trajectories are kept."""

    num_experts: int = setting("networks to train", 100)
    trajectory: Form = choice(FORMS, "what is kept of an expert", Full())
    curriculum: Curriculum = choice(CURRICULA, "images of each epoch", Everything())
    storage: str | None = setting(
        "where experts lie: a folder, or a URI such as s3://bucket/experts (null: OUTPUT/experts)",
        None,
        identity=False,
    )
    store: str | None = setting(
        "use the experts in this folder or URI, such as imported ones, and train none", None, identity=False
    )
    save_every: float = setting("seconds between saves of an expert in training", 60.0, identity=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.num_experts >= 1, "num_experts", f"got {self.num_experts}", "1 or more")
        require(self.save_every >= 0, "save_every", f"got {self.save_every}", "0 (after every epoch) or more")
        self.trajectory.recorded(self.num_epochs, ())


@dataclass(frozen=True)
class ExpertJob:
    """What every expert task needs besides its number.

    ``recorded`` are the epochs that are kept; ``easy_to_hard`` ranks the images where the curriculum asks.
    """

    recipe: Experts
    network: Network
    seed: int
    train: Images
    validation: Images
    num_classes: int
    store: TrajectoryStore
    needed: tuple[float, ...]
    recorded: tuple[float, ...] = ()
    easy_to_hard: Tensor | None = None


def store_for(
    root: str, recipe: Experts, network: Network, data: dict[str, Any], seed: int
) -> TrajectoryStore:
    """The store of exactly these experts; their number is no part of its identity."""
    everything = {
        **data,
        "network": {"kind": type(network).__name__.lower(), **plain(network)},
        "recipe": {key: value for key, value in identity(recipe).items() if key != "num_experts"},
        "seed": seed,
    }
    return TrajectoryStore.below(root, everything)


def train_experts(job: ExpertJob, cluster: Cluster, progress: Progress) -> tuple[list[int], int]:
    """Train the experts that are missing or damaged; returns their numbers and the tasks' peak bytes.

    Those stored whole, with all epochs that are needed, are not touched. Of the others the ones that were
    being trained when something was killed go on from their last save.
    """
    store, total, peak = job.store, job.recipe.num_experts, 0
    with store.folder.lock(progress.say):
        for expert in store.damaged(store.records(total)):
            aside = store.set_aside(expert)
            progress.say(
                f"warning: expert {expert} is not what was written (SHA-256 differs): kept as {aside}, and "
                "trained again"
            )
        missing = store.missing(total, lambda record: _covers(job, record))
        if missing:
            store.write_manifest(total)
            job = _planned(job, missing, cluster, progress)
            with watched(store, missing, job.recipe.num_epochs, progress) as watch:
                for index, facts in cluster.map(train_expert, missing, job):
                    watch.finished(missing[index], facts["validation_accuracy"])
                    peak = max(peak, facts["peak_memory_bytes"])
        store.sweep()
        store.write_manifest(total)
    return missing, peak


def _covers(job: ExpertJob, record: Any) -> bool:
    return job.recipe.trajectory.covers(_stored_epochs(job, record), job.needed)


def _stored_epochs(job: ExpertJob, record: Any) -> tuple[float, ...]:
    return parse_epochs(record.get("epochs", f"0-{job.recipe.num_epochs}"))


def _planned(job: ExpertJob, missing: Sequence[int], cluster: Cluster, progress: Progress) -> ExpertJob:
    """The job with the epochs to record: also those that experts trained again hold already."""
    recorded = {*job.recipe.trajectory.recorded(job.recipe.num_epochs, job.needed)}
    short = {e: r for e, r in job.store.records(job.recipe.num_experts).items() if e in set(missing)}
    for record in short.values():
        recorded |= {*_stored_epochs(job, record)}
    if short:
        first = next(iter(short.values()))
        lacking = format_epochs({*map(same_epoch, job.needed)} - {*_stored_epochs(job, first)})
        progress.say(
            f"note: {len(short)} experts were kept without epochs {lacking}, which this run needs: they are "
            "trained again (experts.trajectory.keep_epochs=all keeps every epoch)"
        )
    curriculum = job.recipe.curriculum
    order = ranking(job, cluster, progress) if curriculum.num_scorers else None
    return ExpertJob(
        job.recipe, job.network, job.seed, job.train, job.validation, job.num_classes, job.store, job.needed,
        tuple(sorted(recorded)), order,
    )  # fmt: skip


def train_expert(expert: int, job: ExpertJob) -> dict[str, Any]:
    """Train and store expert number ``expert``. The same number gives the same trajectory.

    Goes on from the last save of whoever was killed while training it.

    Raises:
        DivergedError: a parameter is no longer finite.
    """
    with footprint() as cost:
        task = _ExpertTask(expert, job)
        task.run()
        accuracies = task.accuracies()
        sizes = FlatNetwork(task.training.network).sizes
        reached = task.reached
        rows_RP = torch.stack([reached.rows[epoch].float().cpu() for epoch in job.recorded])
        tensors = job.recipe.trajectory.tensors(job.recorded, rows_RP, sizes)
    facts = {
        **accuracies, "seconds": round(task.seconds(), 2), "peak_memory_bytes": cost.peak_bytes,
        "device": _device_name(), "host": socket.gethostname(),
    }  # fmt: skip
    job.store.write(expert, tensors, job.recorded, facts)
    task.unfinished.clear()
    return facts


@dataclass
class _ExpertTask:
    """One expert on its way: restored, trained epoch by epoch, saved now and then."""

    expert: int
    job: ExpertJob
    training: Training = field(init=False)
    reached: Reached = field(init=False)

    def __post_init__(self) -> None:
        job, where = self.job, device()
        images, targets = job.train.images, job.train.targets
        rng = generator(job.seed, "expert", self.expert, "start")
        shape = (images.shape[1], images.shape[2], images.shape[3])
        network = initialised(job.network, shape, job.num_classes, rng).to(where)
        refuse_impure(network)  # before hours are spent on an expert that no student could follow
        self.training = Training(
            network, images.to(where), targets.to(where), job.recipe, (job.seed, "expert", self.expert),
            chosen=self._chosen if job.easy_to_hard is not None else None,
        )  # fmt: skip
        self.unfinished = job.store.unfinished(self.expert, job.recorded)
        self.started = time.monotonic()
        found = self.unfinished.load()
        if found is None:
            start_P = self.training.theta_P
            rows = {0.0: start_P} if 0.0 in job.recorded else {}
            self.reached = Reached(0, start_P, self.training.velocity_P, 0.0, rows)
        else:
            self.reached = found
            self.training.load(found.theta_P, found.velocity_P, found.epoch)
        self.seconds_before = self.reached.seconds

    def run(self) -> None:
        """Train to the last epoch, saving every ``save_every`` seconds."""
        saved_epoch, saved_at = self.reached.epoch, time.monotonic()
        while self.training.epoch < self.job.recipe.num_epochs:
            self._epoch()
            due = time.monotonic() - saved_at >= self.job.recipe.save_every
            if due and self.training.epoch < self.job.recipe.num_epochs:
                self.unfinished.save(saved_epoch, self.reached)
                saved_epoch, saved_at = self.training.epoch, time.monotonic()

    def _epoch(self) -> None:
        before = self.training.epoch
        due = [epoch for epoch in self.job.recorded if before < epoch <= before + 1]
        thetas = self.training.run_epoch([epoch - before for epoch in due])
        for epoch, theta_P in zip(due, thetas, strict=False):
            self.reached.rows[epoch] = theta_P
        for _ in thetas:
            pass
        if not bool(self.training.theta_P.isfinite().all()):
            raise DivergedError(
                f"expert {self.expert}, epoch {self.training.epoch}",
                "its parameters are no longer finite",
                fix="lower experts.optimizer.learning_rate",
            )
        self.reached.epoch, self.reached.seconds = self.training.epoch, self.seconds()
        self.reached.theta_P, self.reached.velocity_P = self.training.theta_P, self.training.velocity_P

    def seconds(self) -> float:
        """Spent on this expert so far, what was lost in kills aside."""
        return self.seconds_before + time.monotonic() - self.started

    def accuracies(self) -> dict[str, float]:
        """Of the last checkpoint, in [0, 1]."""
        training, where = self.training, device()
        judge = self.job.validation.images.to(where), self.job.validation.targets.to(where)
        return {
            "train_accuracy": accuracy(training.network, training.images_nCHW, training.labels),
            "validation_accuracy": accuracy(training.network, *judge),
        }

    def _chosen(self, epoch: int) -> Tensor:
        assert self.job.easy_to_hard is not None
        return self.job.recipe.curriculum.chosen(epoch, self.job.easy_to_hard)


def _device_name() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return "CPU, 1 thread" if threads == 1 else f"CPU, {threads} threads"


def summary(store: TrajectoryStore, num_experts: int) -> tuple[str, list[dict[str, Any]]]:
    """One line about the accuracy of the experts, and their records in order."""
    records = [record for _, record in sorted(store.records(num_experts).items())]
    known = [record for record in records if "validation_accuracy" in record]
    if not known:
        return "", records
    values = [100 * record["validation_accuracy"] for record in known]
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    lowest = min(known, key=lambda record: record["validation_accuracy"])
    line = (
        f"validation accuracy {statistics.mean(values):.1f} ± {spread:.1f} % over {len(values)} experts, "
        f"lowest {min(values):.1f} % (expert {lowest['expert']}), highest {max(values):.1f} %"
    )
    return line, records


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


def verify(store: TrajectoryStore, num_experts: int, num_parameters: int, needed: Sequence[float]) -> None:
    """Open every expert once: checksum, parameters, epochs."""
    for expert in range(num_experts):
        where = f"{store.folder}/{store.name_of(expert)}"
        check_fits(store.open(expert), where, num_parameters, needed)
