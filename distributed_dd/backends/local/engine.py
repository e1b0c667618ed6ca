"""Outer steps in this process: the plain twin of a gang of ranks."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from distributed_dd.backends.local.learner import LocalLearner
from distributed_dd.family import setting
from distributed_dd.learning.update_rules import UpdateRule
from distributed_dd.outer.ahead import Ahead
from distributed_dd.outer.checkpoint import Saved, Shard
from distributed_dd.outer.division import Division
from distributed_dd.outer.footprint import peak_bytes
from distributed_dd.outer.ports import Job, Link, Worker
from distributed_dd.outer.sharing import Sharing
from distributed_dd.outer.stored_choice import stored_in
from distributed_dd.unroll import Alone, Ranks, Stored


@dataclass(frozen=True)
class Local:
    """One process does the distillation."""

    stored: Literal["auto", "device", "host"] = setting(
        "where the student parameters of an unroll wait for the way back; auto: the host's memory where they "
        "would take more than a quarter of the GPU's",
        "auto",
    )
    max_restarts = 0

    def check(self, division: Division) -> None:
        """Refuse nothing: one process can do every method."""

    def refuse_without_room(self, cluster: Any) -> None:
        """Refuse nothing: this process is there already."""

    def sharing(self) -> Sharing:
        """Everything falls to this process."""
        return Sharing("this process", 1, 1, 3.0)

    def bundles(self, cluster: Any) -> list[dict[str, float]]:
        """Nothing is asked of Ray: this process is the only one."""
        return []

    def workers(self, job: Job, cluster: Any, logs: Any) -> "LocalWorkers":
        """This process."""
        return LocalWorkers(job=job, cluster=cluster, settings=self)


@dataclass(frozen=True)
class LocalTools:
    """What the only process works with."""

    settings: Local
    ranks: Ranks = field(default_factory=Alone)

    def learner(self, saved: Saved, rules: Mapping[str, UpdateRule]) -> LocalLearner:
        """Whole tensors, updated by torch."""
        return LocalLearner(saved, rules)

    def stored(self, num_parameters: int, num_steps: int) -> Callable[[], Stored]:
        """On the device, or in the host's memory."""
        return stored_in(self.settings.stored, num_parameters, num_steps, self.ranks)


@dataclass(kw_only=True)
class LocalWorkers:
    """One worker, here; tasks go to ``cluster``."""

    job: Job
    cluster: Any
    settings: Local
    worker: Any = field(init=False)
    ahead: Ahead | None = field(init=False, default=None)

    def __str__(self) -> str:
        return "one process"

    def start(self) -> None:
        """Begin from the newest checkpoint."""
        job = self.job
        record = job.checkpoints.load(verify=False)
        if record is None:
            raise RuntimeError("a worker begins from a checkpoint, and there is none")
        if job.chain is not None and (threads := self.cluster.threads_beside_a_task()) is not None:
            torch.set_num_threads(threads)  # the cores that are left by what is made ahead
        worker: Worker = job.worker(job.checkpoints.saved(record["newest"]), LocalTools(self.settings))
        self.worker, self.ahead = worker, Ahead.of(job.chain, record["step"], self)

    def outer_steps(self, first: int, last: int) -> Iterator[dict[str, float]]:
        """Make outer steps first .. last (exclusive)."""
        assert self.ahead is not None
        for start, end, handle in self.ahead.spans(first, last):
            prepared = None if handle is None else self.fetch(handle)
            for step in range(start, end):
                yield self.worker.outer_step(step, prepared)

    def save(self, step: int) -> list[Shard]:
        """Write everything as one shard."""
        return [self.worker.save(step)]

    def map(self, function: Callable[[Any, Any], Any], tasks: Sequence[Any], shared: Any) -> Iterator[tuple[int, Any]]:
        """Tasks on the cluster."""
        yield from self.cluster.map(function, tasks, shared)

    def chain(self, function: Link, tasks: Iterable[Any], shared: Any, ahead: int) -> Iterator[Any]:
        """Tasks of a chain, on the cluster."""
        yield from self.cluster.chain(function, tasks, shared, ahead)

    def fetch(self, handle: Any) -> Any:
        """What a handle of the cluster stands for."""
        return self.cluster.fetch(handle)

    def spared(self) -> None:
        """Nothing: this process is not survived."""

    def peak_memory_bytes(self) -> int:
        """The most that this process held."""
        return peak_bytes()

    def stop(self) -> None:
        """Let go of what was made ahead."""
        self.ahead = None
