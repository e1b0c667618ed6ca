"""From words to running objects."""

from pathlib import Path
from typing import Any

from distributed_dd import config
from distributed_dd.backends.clusters import CLUSTERS
from distributed_dd.backends.in_process_cluster import InProcess
from distributed_dd.backends.ray_cluster import RayCluster
from distributed_dd.distillation.methods import Generative, TrajectoryMatching
from distributed_dd.errors import ConfigError
from distributed_dd.family import build, build_member
from distributed_dd.runners.generative import GenerativeRun
from distributed_dd.runners.run import Run
from distributed_dd.runners.trajectory import TrajectoryRun
from distributed_dd.stages.experiment import Experiment

RUNS: dict[type, type[Run]] = {TrajectoryMatching: TrajectoryRun, Generative: GenerativeRun}
"""Who runs a method."""


def experiment_from(path: Path, overrides: list[str]) -> Experiment:
    """The experiment that a file and overrides describe."""
    values = config.read(path, overrides)
    if "space" in values:
        raise ConfigError(str(path), "is a sweep file", fix=f"distributed-dd tune {path}")
    return build(Experiment, values)


def cluster_from(path: Path | None) -> RayCluster | InProcess:
    """Where tasks run: what the cluster file says, or a local Ray."""
    return RayCluster() if path is None else build_member(CLUSTERS, config.read(path), str(path))


def run_of(experiment: Experiment, cluster: RayCluster | InProcess, *given: Any, **named: Any) -> Run:
    """The run of an experiment in its run folder; what else is given is as `Run` takes it."""
    return RUNS[type(experiment.method)](experiment, cluster, *given, **named)
