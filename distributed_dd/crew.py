"""What a run's prelude and its distillation are made with: cluster, engine, trackers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed_dd.backends.engines import ENGINES
from distributed_dd.backends.local.cluster import InProcess
from distributed_dd.backends.local.console import ConsoleProgress
from distributed_dd.backends.ray.cluster import RayCluster
from distributed_dd.data import Splits
from distributed_dd.experiment import Experiment
from distributed_dd.family import plain
from distributed_dd.outer.ports import Job, Tracker, Workers
from distributed_dd.outer.prelude import SharedRun
from distributed_dd.outer.run_folder import RunFolder
from distributed_dd.tracking import Tracking


@dataclass(frozen=True)
class RunCrew:
    """The cluster, its engine and the trackers of one run."""

    experiment: Experiment
    splits: Splits
    cluster: RayCluster | InProcess
    progress: ConsoleProgress

    @property
    def checkpoint_every(self) -> int:
        """Outer steps between checkpoints."""
        return self.experiment.checkpoint_every

    @property
    def max_restarts(self) -> int:
        """How often lost workers are replaced without a checkpoint between."""
        return self.cluster.engine.max_restarts

    @property
    def tracking(self) -> Tracking:
        """Opens the trackers of this run and of what it shares."""
        return Tracking(self.experiment, self.splits, str(self.cluster.engine), self.progress.say)

    def workers(self, job: Job, logs: Path) -> Workers:
        """The workers that make the outer steps of a job."""
        return self.cluster.engine.workers(job, self.cluster, logs)

    def tracker_of(self, shared: SharedRun, folder: RunFolder) -> Tracker:
        """The tracker of a prelude's own run."""
        return self.tracking.of_shared(shared, folder)

    def facts_of(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Facts about a distillation, with the engine that made it."""
        engine = self.cluster.engine
        return {**facts, "engine": {"kind": ENGINES.kind_of(engine), **plain(engine)}}
