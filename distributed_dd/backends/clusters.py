"""Where tasks run, by kind."""

from distributed_dd.backends.local.cluster import InProcess
from distributed_dd.backends.ray.cluster import RayCluster
from distributed_dd.family import Family

CLUSTERS = Family("cluster", {"ray": RayCluster, "in_process": InProcess})
