"""Where tasks run, by kind."""

from distributed_dd.backends.in_process_cluster import InProcess
from distributed_dd.backends.ray_cluster import RayCluster
from distributed_dd.family import Family

CLUSTERS = Family("cluster", {"ray": RayCluster, "in_process": InProcess})
