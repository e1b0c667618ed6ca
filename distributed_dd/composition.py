"""Builds experiments and clusters from files, or plain values, and overrides."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distributed_dd import config
from distributed_dd.backends.clusters import CLUSTERS
from distributed_dd.backends.local.cluster import InProcess
from distributed_dd.backends.ray.cluster import RayCluster
from distributed_dd.errors import ConfigError
from distributed_dd.experiment import Experiment, experiment_of
from distributed_dd.family import build_member

Source = Path | Mapping[str, Any]
"""A file of YAML, or the plain values that one would hold."""


def experiment_from(source: Source, overrides: list[str]) -> Experiment:
    """The experiment that a file or plain values describe, with overrides laid over them."""
    values = _values(source, overrides)
    if "space" in values:
        where = called(source)
        raise ConfigError(where, "is a sweep file", fix=f"distributed-dd tune {where}")
    return experiment_of(values)


def cluster_from(source: Source | None) -> RayCluster | InProcess:
    """Where tasks run: what the cluster file, or its values, say; or a local Ray."""
    return RayCluster() if source is None else build_member(CLUSTERS, _values(source, []), called(source, "on"))


def called(source: Source, otherwise: str = "the configuration") -> str:
    """What messages call a source: its path, where it has one."""
    return str(source) if isinstance(source, Path) else otherwise


def _values(source: Source, overrides: list[str]) -> dict[str, Any]:
    return config.read(source, overrides) if isinstance(source, Path) else config.laid_over(source, overrides)
