"""A Ray of several nodes on this machine: what a cluster does, without one."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def local_nodes(num_nodes: int, cpus_per_node: int) -> Iterator[str]:
    """Start a head without cores and ``num_nodes`` raylets; gives the address, stops all at the end."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(num_nodes):
            cluster.add_node(num_cpus=cpus_per_node)
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        ray.shutdown()
        cluster.shutdown()
