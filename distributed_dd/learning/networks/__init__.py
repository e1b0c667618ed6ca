"""Networks by name. To add one: write its file here and enter it in the table."""

from typing import Protocol

import torch
from torch import nn

from distributed_dd.family import Family
from distributed_dd.learning.chance import seed_from
from distributed_dd.learning.networks.alexnet import AlexNet
from distributed_dd.learning.networks.convnet import ConvNet
from distributed_dd.learning.networks.fitting import check_fits, explained
from distributed_dd.learning.networks.frepo_convnet import FrePoConvNet
from distributed_dd.learning.networks.lenet import LeNet
from distributed_dd.learning.networks.mlp import MLP
from distributed_dd.learning.networks.resnet import ResNet10, ResNet18
from distributed_dd.learning.networks.torchvision_model import TorchvisionModel
from distributed_dd.learning.networks.vgg import VGG11


class Network(Protocol):
    """A network's configuration, able to build the layers."""

    def __hash__(self) -> int: ...

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module: ...


NETWORKS = Family(
    "network",
    {
        "convnet": ConvNet,
        "frepo_convnet": FrePoConvNet,
        "mlp": MLP,
        "lenet": LeNet,
        "alexnet": AlexNet,
        "vgg11": VGG11,
        "resnet10": ResNet10,
        "resnet18": ResNet18,
        "torchvision": TorchvisionModel,
    },
)


def initialised(
    network: Network, image_shape: tuple[int, int, int], num_classes: int, rng: torch.Generator
) -> nn.Module:
    """``network`` with fresh parameters drawn from ``rng``; torch's global state is left as it was.

    Raises:
        ConfigError: it cannot be built for such images, or memory does not hold it.
    """
    with torch.random.fork_rng(devices=[]):
        check_fits(network, image_shape, num_classes, type(network) in NETWORKS.members.values())
        torch.manual_seed(seed_from(rng))
        try:
            return network.build(image_shape, num_classes)
        except (MemoryError, RuntimeError) as error:
            raise explained(error, network) from None
