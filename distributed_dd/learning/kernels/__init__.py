"""Kernels of infinitely wide networks by name, and the ridge regression on any kernel."""

from distributed_dd.learning.kernels.convolutional import Convolutional
from distributed_dd.learning.kernels.fully_connected import FullyConnected
from distributed_dd.learning.kernels.kernel import Kernel as Kernel

KERNELS: dict[str, type[Kernel]] = {"fc": FullyConnected, "conv": Convolutional}
