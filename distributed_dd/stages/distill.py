"""The outer loop as its driver sees it: steps by workers, then score, save, and on."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from distributed_dd.errors import UserError
from distributed_dd.stages.checkpoint import KEPT, Saved, Shard
from distributed_dd.stages.judging import Judging
from distributed_dd.stages.ports import Bar, Cluster, Progress, Tracker, Workers, WorkersLost
from distributed_dd.stages.run_folder import RunFolder

SKIPPED_IN_A_ROW = 25
Set = dict[str, Tensor]


@dataclass
class Distillation:
    """One run of the outer loop; everything it needs is handed in.

    Attributes:
        starting: makes the set before the first outer step.
        judging: when the set is scored.
        averaged: whether the average over outer steps is what is scored and kept.
        score: validation accuracy of a set, by so many fresh networks, as tasks on a cluster.
        show: puts a picture of a set before people, beside the starting set.
        max_restarts: how often lost workers are replaced without a checkpoint between.
    """

    num_outer_steps: int
    judging: Judging
    checkpoint_every: int
    averaged: bool
    starting: Callable[[], Set]
    workers: Workers
    folder: RunFolder
    tracker: Tracker
    progress: Progress
    score: Callable[[Set, int, Cluster], float]
    show: Callable[[int, Set, Set], None]
    max_restarts: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    shards: dict[str, Sequence[Shard]] = field(default_factory=dict)

    def run(self) -> tuple[Set, Set, dict]:
        """Distil; returns the best set by validation, the last set, and facts about the run."""
        step, lost_in_a_row = self._restore(), 0
        self.since = time.monotonic() - self.facts["seconds"]
        try:
            while step < self.num_outer_steps:
                try:
                    self.progress.say(f"distil: {self.workers}")
                    self.workers.start()
                    # Opened after the start, which would count as the first step's time.
                    with self.progress.bar("distil", self.num_outer_steps, step) as bar:
                        while step < self.num_outer_steps:
                            step, lost_in_a_row = self._stretch(step, bar), 0
                except WorkersLost as lost:
                    lost_in_a_row += 1
                    if lost_in_a_row > self.max_restarts:
                        raise self._given_up(lost) from None
                    self.progress.say(f"warning: {lost}; all start again from the last checkpoint")
                    step = self._restore()
        finally:
            self.workers.stop()
        return self._set("best"), self._set("newest"), dict(self.facts)

    def start(self) -> Set:
        """The set before the first outer step."""
        return self._set("start")

    def _given_up(self, lost: WorkersLost) -> UserError:
        return UserError(
            "engine",
            f"{lost}, for the {self.max_restarts + 1}th time without a checkpoint between",
            fix="see the logs of the ranks in the run folder; the same command goes on from "
            f"{self.folder.checkpoints.latest}",
        )

    def _stretch(self, step: int, bar: Bar) -> int:
        """Outer steps up to the next one that is scored or saved, which is done too; the step reached."""
        last = min(self.judging.next_after(step), _next(step, self.checkpoint_every))
        for metrics in self.workers.outer_steps(step, last):
            step += 1
            self._count(step, metrics)
            bar.reach(step, f"matching loss {metrics['matching_loss']:.4f}")
            if step < last:
                self._record(step, metrics)
        newest = self.workers.save(step)
        scored = step in self.judging.steps
        if scored:
            metrics["validation_accuracy"] = self._score(step, newest)
        self._record(step, metrics)
        self.facts["seconds"] = time.monotonic() - self.since
        peak = self.workers.peak_memory_bytes()
        self.facts["peak_memory_bytes"] = max(self.facts["peak_memory_bytes"], peak)
        self._commit(step, newest)
        if scored:
            self.judging.hear(step, metrics["validation_accuracy"])
        return step

    def _record(self, step: int, metrics: Mapping[str, float]) -> None:
        self.folder.metrics.write(step, metrics)
        self.tracker.metrics(step, metrics)

    def _count(self, step: int, metrics: dict[str, float]) -> None:
        """Steps that changed nothing, and rates at their floor: said once, or hours would look like work."""
        skipped, floored = not metrics["accepted"], metrics.pop("floored")
        self.facts["skipped"] += skipped
        self.facts["skipped_in_a_row"] = self.facts["skipped_in_a_row"] + 1 if skipped else 0
        if self.facts["skipped_in_a_row"] == SKIPPED_IN_A_ROW:
            self.progress.say(
                f"warning: outer step {step}: the last {SKIPPED_IN_A_ROW} changed nothing, the matching loss "
                f"({metrics['matching_loss']:.2f}) is above method.gate; lower method.student_learning_rate "
                "or raise the gate"
            )
        if floored and not self.facts["floored"]:
            self.progress.say(
                f"warning: outer step {step}: the student learning rate fell to its floor "
                f"{metrics['student_learning_rate']:g}; lower method.rate_optimizer.learning_rate"
            )
        self.facts["floored"] += bool(floored)

    def _score(self, step: int, newest: Sequence[Shard]) -> float:
        current = self._whole(newest)
        value = self.score(current, self.judging.networks_at(step), self.workers)
        if value > self.facts["best_accuracy"]:
            self.shards["best"] = newest
            self.facts |= {"best_step": step, "best_accuracy": value}
        self.progress.say(
            f"outer step {step}: validation accuracy {100 * value:.1f} % (best "
            f"{100 * self.facts['best_accuracy']:.1f} % at {self.facts['best_step']})"
        )
        self.show(step, self._set("start"), current)
        return value

    def _commit(self, step: int, newest: Sequence[Shard]) -> None:
        self.shards["newest"] = newest
        self.folder.checkpoints.commit(step, self.shards, self.facts)

    def _restore(self) -> int:
        record = self.folder.checkpoints.load()
        if record is None:
            self.folder.metrics.rewind(0)
            return self._begin()
        self.facts = {name: record[name] for name in NO_FACTS}
        self.shards = {which: record[which] for which in KEPT}
        self.folder.metrics.rewind(record["step"])
        if record["step"]:
            self.progress.say(f"going on from outer step {record['step']}")
        return record["step"]

    def _begin(self) -> int:
        """The starting set is checkpoint 0: workers know no other way to begin than from a checkpoint."""
        self.facts = dict(NO_FACTS)
        shard = self.folder.checkpoints.write_shard(0, 0, 1, 0, self.starting())
        self.shards = {"start": [shard], "best": []}
        self._commit(0, [shard])
        self.show(0, self._set("start"), self._set("start"))
        return 0

    def _set(self, which: str) -> Set:
        saved = self.folder.checkpoints.saved(self.shards[which])
        return saved.whole() if which == "start" else self._whole(self.shards[which])

    def _whole(self, shards: Sequence[Shard]) -> Set:
        return Saved(self.folder.checkpoints.folder, shards).whole(self.averaged)


NO_FACTS: dict[str, Any] = {
    "best_step": 0, "best_accuracy": -1.0, "skipped": 0, "skipped_in_a_row": 0, "floored": 0, "seconds": 0.0,
    "peak_memory_bytes": 0,
}  # fmt: skip


def _next(step: int, every: int) -> int:
    """The first multiple of ``every`` after ``step``."""
    return (step // every + 1) * every
