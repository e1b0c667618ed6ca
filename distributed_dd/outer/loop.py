"""The outer loop in its driver: workers make steps, then the subject is scored and saved."""

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from distributed_dd.errors import UserError
from distributed_dd.interrupts import raise_if_swallowed
from distributed_dd.outer.checkpoint import KEPT, Saved, Shard
from distributed_dd.outer.judging import Judging
from distributed_dd.outer.ports import Bar, Cluster, Progress, Tracker, Workers, WorkersLost
from distributed_dd.outer.run_folder import RunFolder

Tensors = dict[str, Tensor]


def never(tensors: Tensors, num_networks: int, cluster: Cluster) -> float:
    """Refuse to score: for subjects that are only shown."""
    raise RuntimeError("this is not scored while it is made")


def nothing(step: int, metrics: dict[str, float], facts: dict[str, Any]) -> Iterator[str]:
    """Count nothing."""
    return iter(())


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is distilled, as the outer loop sees it.

    Attributes:
        starting: what a checkpoint holds before the first outer step.
        read: what is scored, shown and kept of a checkpoint.
        show: put a picture before people: outer step, start, what is there now.
        score: validation accuracy by so many fresh networks, as tasks on a cluster.
        noted: metric -> the word with which a progress bar tells it.
        count: count in facts what an outer step did; yields what a person must hear.
        no_facts: what is counted, before the first outer step.
    """

    starting: Callable[[], Tensors]
    read: Callable[[Saved], Tensors]
    show: Callable[[int, Tensors, Tensors], None]
    score: Callable[[Tensors, int, Cluster], float] = never
    noted: Mapping[str, str] = field(default_factory=dict)
    count: Callable[[int, dict[str, float], dict[str, Any]], Iterator[str]] = nothing
    no_facts: Mapping[str, Any] = field(default_factory=dict)

    def note(self, metrics: Mapping[str, float]) -> str:
        """What a progress bar tells of an outer step."""
        words = [f"{word} {metrics[name]:.4g}" for name, word in self.noted.items() if name in metrics]
        return ", ".join(words)


@dataclass(kw_only=True)
class Distillation:
    """One run of the outer loop; everything it needs is handed in.

    Attributes:
        judging: when the subject is scored and shown.
        max_restarts: how often lost workers are replaced without a checkpoint between.
        what: the bar's name. unit: what a step is called.
    """

    num_outer_steps: int
    judging: Judging
    checkpoint_every: int
    subject: Subject
    workers: Workers
    folder: RunFolder
    tracker: Tracker
    progress: Progress
    max_restarts: int = 0
    what: str = "distil"
    unit: str = "outer step"
    facts: dict[str, Any] = field(default_factory=dict)
    shards: dict[str, Sequence[Shard]] = field(default_factory=dict)
    counted: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Facts after each outer step since the last checkpoint."""

    def run(self) -> tuple[Tensors, Tensors, dict]:
        """Distil; returns the best by validation (the last, if none was scored), the last, and facts."""
        step, lost_in_a_row = self._restore(), 0
        self.since = time.monotonic() - self.facts["seconds"]
        try:
            while step < self.num_outer_steps:
                try:
                    self.progress.say(f"{self.what}: {self.workers}")
                    self.workers.start()
                    # Opened after the start, which would count as the first step's time.
                    with self.progress.bar(self.what, self.num_outer_steps, step) as bar:
                        while step < self.num_outer_steps:
                            step, lost_in_a_row = self._stretch(step, bar), 0
                except WorkersLost as lost:
                    lost_in_a_row = 1 if (spared := self._commit_spared()) else lost_in_a_row + 1
                    if lost_in_a_row > self.max_restarts:
                        raise self._given_up(lost) from None
                    where = "what the others kept in memory" if spared else "the last checkpoint"
                    self.progress.say(f"warning: {lost}; all start again from {where}")
                    step = self._restore()
        finally:
            self.workers.stop()
        return self._read("best" if self.shards["best"] else "newest"), self._read("newest"), dict(self.facts)

    def start(self) -> Tensors:
        """The subject before the first outer step."""
        return self._read("start")

    def _given_up(self, lost: WorkersLost) -> UserError:
        return UserError(
            "engine",
            f"{lost}, for the {self.max_restarts + 1}th time without a checkpoint between",
            fix="see the logs of the ranks in the run folder; the same command goes on from "
            f"{self.folder.checkpoints.latest}",
        )

    def _stretch(self, step: int, bar: Bar) -> int:
        """Outer steps up to the next one that is judged or saved, which is done too; the step reached."""
        last = min(self.judging.next_after(step), _next(step, self.checkpoint_every), self.num_outer_steps)
        for metrics in self.workers.outer_steps(step, last):
            raise_if_swallowed()
            step += 1
            self._count(step, metrics)
            bar.reach(step, self.subject.note(metrics))
            if step < last:
                self._record(step, metrics)
        newest = self.workers.save(step)
        judged = step in self.judging.steps
        if judged:
            metrics |= self._judge(step, newest)
        self._record(step, metrics)
        self.facts["seconds"] = time.monotonic() - self.since
        peak = self.workers.peak_memory_bytes()
        self.facts["peak_memory_bytes"] = max(self.facts["peak_memory_bytes"], peak)
        self._commit(step, newest)
        if "validation_accuracy" in metrics:
            self.judging.hear(step, metrics["validation_accuracy"])
        return step

    def _count(self, step: int, metrics: dict[str, float]) -> None:
        for message in self.subject.count(step, metrics, self.facts):
            self.progress.say(message)
        self.counted[step] = copy.deepcopy(self.facts)

    def _commit_spared(self) -> bool:
        """Make a checkpoint of what the workers that were left still held; whether there was anything."""
        spared = self.workers.spared()
        if spared is None:
            return False
        for step, metrics in spared.measured:
            # The driver may have heard less than the ranks had done.
            if step == max(self.counted) + 1 and step <= spared.step:
                self._count(step, dict(metrics))
                self._record(step, metrics)
        if spared.step not in self.counted:
            return False
        self.facts = self.counted[spared.step] | {"seconds": time.monotonic() - self.since}
        self.folder.metrics.rewind(spared.step)
        self._commit(spared.step, spared.shards)
        return True

    def _record(self, step: int, metrics: Mapping[str, float]) -> None:
        self.folder.metrics.write(step, metrics)
        self.tracker.metrics(step, metrics)

    def _judge(self, step: int, newest: Sequence[Shard]) -> dict[str, float]:
        """Show the subject as it is now, and score it where networks are to do so."""
        current, scores = self._tensors(newest), {}
        if num_networks := self.judging.networks_at(step):
            value = scores["validation_accuracy"] = self.subject.score(current, num_networks, self.workers)
            self.facts["scores"][str(step)] = value
            if value > self.facts["best_accuracy"]:
                self.shards["best"] = newest
                self.facts |= {"best_step": step, "best_accuracy": value}
            self.progress.say(
                f"outer step {step}: validation accuracy {100 * value:.1f} % (best "
                f"{100 * self.facts['best_accuracy']:.1f} % at {self.facts['best_step']})"
            )
        self.subject.show(step, self._read("start"), current)
        return scores

    def _commit(self, step: int, newest: Sequence[Shard]) -> None:
        self.shards["newest"] = newest
        self.facts["metrics_sha256"] = self.folder.metrics.digest
        self.folder.checkpoints.commit(step, self.shards, self.facts)
        self.counted = {step: copy.deepcopy(self.facts)}

    def _restore(self) -> int:
        record, warning = self.folder.checkpoints.recover()
        if warning:
            self.progress.say(warning)
        if record is None:
            if self.folder.metrics.rewind(0):
                self.progress.say(f"warning: {self.folder.path} has no checkpoint: {self.what} begins anew")
            return self._begin()
        self.facts = {name: record.get(name, default) for name, default in self._no_facts().items()}
        self.shards = {which: record[which] for which in KEPT}
        self.counted = {record["step"]: copy.deepcopy(self.facts)}
        self.folder.metrics.rewind(record["step"])
        if self.facts["metrics_sha256"] not in ("", self.folder.metrics.digest):
            self.progress.say(
                f"warning: {self.folder.metrics.path} is not what was measured up to {self.unit} {record['step']}: "
                "lines were lost or changed"
            )
        if record["step"]:
            self.progress.say(f"{self.what}: going on from {self.unit} {record['step']} of {self.num_outer_steps}")
        return record["step"]

    def _begin(self) -> int:
        """Write the start as checkpoint 0: workers always begin from a checkpoint."""
        self.facts = self._no_facts()
        shard = self.folder.checkpoints.write_shard(0, 0, 1, 0, self.subject.starting())
        self.shards = {"start": [shard], "best": []}
        self._commit(0, [shard])
        self.subject.show(0, self._read("start"), self._read("start"))
        return 0

    def _no_facts(self) -> dict[str, Any]:
        return NO_FACTS | {"scores": {}} | dict(self.subject.no_facts)

    def _read(self, which: str) -> Tensors:
        return self._tensors(self.shards[which])

    def _tensors(self, shards: Sequence[Shard]) -> Tensors:
        return self.subject.read(self.folder.checkpoints.saved(shards))


NO_FACTS: dict[str, Any] = {
    "best_step": 0,
    "best_accuracy": -1.0,
    "seconds": 0.0,
    "peak_memory_bytes": 0,
    "metrics_sha256": "",
}


def _next(step: int, every: int) -> int:
    """The first multiple of ``every`` after ``step``."""
    return (step // every + 1) * every
