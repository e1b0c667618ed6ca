"""Builds experiments and clusters from files and overrides."""

from pathlib import Path

from distributed_dd import config
from distributed_dd.backends.clusters import CLUSTERS
from distributed_dd.backends.local.cluster import InProcess
from distributed_dd.backends.ray.cluster import RayCluster
from distributed_dd.errors import ConfigError
from distributed_dd.experiment import Experiment, experiment_of
from distributed_dd.family import build_member


def experiment_from(path: Path, overrides: list[str]) -> Experiment:
    """The experiment that a file and overrides describe."""
    values = config.read(path, overrides)
    if "space" in values:
        raise ConfigError(str(path), "is a sweep file", fix=f"distributed-dd tune {path}")
    return experiment_of(values)


def cluster_from(path: Path | None) -> RayCluster | InProcess:
    """Where tasks run: what the cluster file says, or a local Ray."""
    return RayCluster() if path is None else build_member(CLUSTERS, config.read(path), str(path))
