"""The kernel of a network that is made infinitely wide."""

from dataclasses import dataclass

from distributed_dd.errors import ConfigError
from distributed_dd.family import Family
from distributed_dd.learning.kernels import KERNELS, Kernel
from distributed_dd.learning.kernels.convolutional import Convolutional
from distributed_dd.learning.kernels.fully_connected import FullyConnected
from distributed_dd.learning.networks import NETWORKS, Network
from distributed_dd.learning.networks.convnet import ConvNet
from distributed_dd.learning.networks.mlp import MLP

ALLOWED = "convnet with norm none and average pooling, or mlp of two layers or more"


@dataclass(frozen=True)
class OfNetwork:
    """The network of the configuration, infinitely wide: a plain ConvNet or perceptron."""


CHOICES = Family("kernel", {**KERNELS, "network": OfNetwork})


def limit_of(network: Network) -> Kernel:
    """The kernel to which a network's own tends as its layers widen.

    Raises:
        ConfigError: no such kernel is known in closed form, such as for a network with norms.
    """
    if isinstance(network, ConvNet):
        if network.norm != "none":
            raise _refusal("network.norm", f"is {network.norm}: no kernel of infinite width with norms is known here")
        if network.pooling != "average":
            raise _refusal("network.pooling", f"is {network.pooling}: its kernel is not known in closed form")
        return Convolutional(blocks=(1,) * network.depth)
    if isinstance(network, MLP) and network.depth > 1:
        return FullyConnected(network.depth - 1)
    raise _refusal("network", f"{NETWORKS.kind_of(network)} has no kernel of infinite width here")


def _refusal(where: str, problem: str) -> ConfigError:
    return ConfigError(
        where,
        problem,
        allowed=ALLOWED,
        fix="name a kernel of its own, method.kernel.kind=fc or conv; or change the network, which also scores the set",
    )
