"""One expert: how it is trained, and the task that trains it and goes on where another was killed."""

import socket
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from distributed_dd.data import Images
from distributed_dd.errors import ConfigError, DivergedError
from distributed_dd.family import choice, require, setting
from distributed_dd.learning.chance import generator
from distributed_dd.learning.curriculum import CURRICULA, Curriculum, Everything
from distributed_dd.learning.device import device
from distributed_dd.learning.flat import FlatNetwork, refuse_impure
from distributed_dd.learning.loop import Recipe, Training, accuracy
from distributed_dd.learning.networks import Network, initialised
from distributed_dd.outer.footprint import footprint
from distributed_dd.trajectories.forms import FORMS, Form, Full
from distributed_dd.trajectories.store import TrajectoryStore
from distributed_dd.trajectories.unfinished import Reached


@dataclass(frozen=True, kw_only=True)
class Experts(Recipe):
    """Networks trained on real data, whose trajectories are kept."""

    num_experts: int = setting("networks to train", 100, at_least=1, at_most=1_000_000)
    trajectory: Form = choice(FORMS, "what is kept of an expert", Full())
    curriculum: Curriculum = choice(CURRICULA, "images of each epoch", Everything())
    storage: str | None = setting(
        "where experts lie: a folder, or a URI such as s3://bucket/experts (null: OUTPUT/experts)",
        None,
        identity=False,
        place=True,
    )
    store: str | None = setting(
        "use the experts in this folder or URI, such as imported ones, and train none",
        None,
        identity=False,
        place=True,
    )
    save_every: float = setting("seconds between saves of an expert in training", 60.0, identity=False)

    def __post_init__(self) -> None:
        try:
            self.trajectory.recorded(self.num_epochs, ())
        except ConfigError as error:
            where = f"trajectory.{error.where}"
            raise ConfigError(where, error.problem, allowed=error.allowed, fix=error.fix) from None
        full = self.curriculum.full_epoch
        require(
            full <= self.num_epochs,
            "curriculum.full_epoch",
            f"{full} is beyond the {self.num_epochs} epochs of training: no expert would see all images",
            f"at most {self.num_epochs}",
        )


@dataclass(frozen=True, kw_only=True)
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
        **accuracies,
        "seconds": round(task.seconds(), 2),
        "peak_memory_bytes": cost.peak_bytes,
        "device": _device_name(),
        "host": socket.gethostname(),
    }
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
            network,
            images.to(where),
            targets.to(where),
            job.recipe,
            (job.seed, "expert", self.expert),
            chosen=self._chosen if job.easy_to_hard is not None else None,
        )
        self.unfinished = job.store.unfinished(self.expert, job.recorded)
        self.started = time.monotonic()
        saved = self.unfinished.load()
        if saved is None:
            start_P = self.training.theta_P
            rows = {0.0: start_P} if 0.0 in job.recorded else {}
            self.reached = Reached(
                epoch=0, theta_P=start_P, velocity_P=self.training.velocity_P, seconds=0.0, rows=rows
            )
        else:
            self.reached = saved
            self.training.load(saved.theta_P, saved.velocity_P, saved.epoch)
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
