"""Gangs of 1, 2 and 4 ranks, started once for all tests here."""

import pytest
import torch

from distributed_dd.backends.deepspeed.engine import DeepSpeedRanks
from distributed_dd.backends.ray.cluster import RayCluster
from distributed_dd.backends.ray.gang import Gang


@pytest.fixture(scope="package")
def gangs():
    """How a gang of so many ranks is asked for; Ray is told of more cores than there are."""
    import ray

    ray.shutdown()
    torch.set_num_threads(1)
    cluster, started = RayCluster(num_cpus=8), {}

    def gang(num_ranks: int) -> Gang:
        settings = DeepSpeedRanks(num_ranks=num_ranks, timeout=60.0)
        found = started.setdefault(num_ranks, Gang(job=None, cluster=cluster, settings=settings, logs=None))
        if not found.actors:  # a test that failed takes its gang down
            found.gather()
        return found

    def stop() -> None:
        for each in started.values():
            each.stop()

    gang.stop = stop  # for who needs their cores
    yield gang
    stop()
    ray.shutdown()
