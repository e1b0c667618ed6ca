"""Outer steps in this process: the plain twin of a gang of ranks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from distributed_dd.backends.local_engine import LocalEngine
from distributed_dd.distillation.methods import TrajectoryMatching
from distributed_dd.distillation.sharded import Alone
from distributed_dd.family import setting
from distributed_dd.stages.checkpoint import Shard
from distributed_dd.stages.estimate import Sharing
from distributed_dd.stages.footprint import peak_bytes
from distributed_dd.stages.ports import Cluster
from distributed_dd.stages.stored_choice import stored_in
from distributed_dd.stages.worker import Job, Worker


@dataclass(frozen=True)
class Local:
    """One process does the distillation."""

    stored: Literal["auto", "device", "host"] = setting(
        "where the student parameters of an unroll wait for the way back; auto: the host's memory where they "
        "would take more than a quarter of the GPU's", "auto"
    )  # fmt: skip
    max_restarts = 0

    def check(self, method: TrajectoryMatching, num_images: int, network: nn.Module) -> None:
        """Everything can be done here."""

    def refuse_without_room(self, cluster: Any) -> None:
        """This process is there."""

    def sharing(self) -> Sharing:
        """Everything falls to this process."""
        return Sharing("this process", 1, 1, 3.0)

    def bundles(self, cluster: Any) -> list[dict[str, float]]:
        """There are none."""
        return []

    def workers(self, job: Job, cluster: Cluster, logs: Any) -> "LocalWorkers":
        """This process."""
        return LocalWorkers(job, cluster, self)


@dataclass
class LocalWorkers:
    """One worker, here; tasks go to ``cluster``."""

    job: Job
    cluster: Cluster
    settings: Local
    worker: Worker = field(init=False)

    def __str__(self) -> str:
        return "one process"

    def start(self) -> None:
        """Begin from the newest checkpoint."""
        job = self.job
        record = job.checkpoints.load(verify=False)
        if record is None:
            raise RuntimeError("a worker begins from a checkpoint, and there is none")
        saved, ranks = job.checkpoints.saved(record["newest"]), Alone()
        engine = LocalEngine(saved, job.method.optimizers())
        stored = stored_in(self.settings.stored, job.student.num_parameters, job.method.student_steps, ranks)
        self.worker = Worker(job, engine, ranks, stored, saved)

    def outer_steps(self, first: int, last: int) -> Iterator[dict[str, float]]:
        """Make outer steps first .. last (exclusive)."""
        for step in range(first, last):
            yield self.worker.outer_step(step)

    def save(self, step: int) -> list[Shard]:
        """Write the whole set as one shard."""
        return [self.worker.save(step)]

    def map(
        self, function: Callable[[Any, Any], Any], tasks: Sequence[Any], shared: Any
    ) -> Iterator[tuple[int, Any]]:
        """Tasks on the cluster."""
        yield from self.cluster.map(function, tasks, shared)

    def peak_memory_bytes(self) -> int:
        """The most that this process held."""
        return peak_bytes()

    def stop(self) -> None:
        """Nothing to let go of."""
