"""The settings of the networks that compare generated with real images."""

from dataclasses import dataclass

import torch

from distributed_dd.family import choice, choices, require, setting
from distributed_dd.learning.augment import AUGMENTATIONS, Augmentation, InTurn
from distributed_dd.learning.chance import generator
from distributed_dd.learning.networks import NETWORKS, Network
from distributed_dd.learning.networks.convnet import ConvNet
from distributed_dd.learning.networks.resnet import ResNet10, ResNet18


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The networks that compare generated with real images: one at a time, drawn at random, freshly made.

    While one is in use it is trained on real images, ``net_steps`` steps before each update of the generator.
    """

    networks: tuple[Network, ...] = choices(
        NETWORKS, "kinds to draw from", (ConvNet(), ResNet10(width=32), ResNet18(width=32))
    )
    layers: tuple[int | str, ...] = setting(
        "layer of each whose features are matched: middle, a block's number, a module's name (empty: middle)",
        (),
    )
    steps_per_network: int = setting(
        "updates of the generator with one network, then the next is drawn", 781, at_least=1
    )
    net_steps: int = setting("its SGD steps before each update of the generator (0: it stays untrained)", 16)
    batch_size: int = setting("real images per step of its own", 64, at_least=1)
    learning_rate: float = setting("of its SGD", 0.01, above=0)
    momentum: float = setting("of its SGD", 0.9, at_least=0, below=1)
    weight_decay: float = setting("of its SGD", 5e-4)
    augment: Augmentation = choice(AUGMENTATIONS, "augmentation of its real images", InTurn())

    def __post_init__(self) -> None:
        require(bool(self.networks), "networks", "empty", ", ".join(NETWORKS.members))
        require(
            len(self.layers) in (0, len(self.networks)),
            "layers",
            f"{len(self.layers)} for {len(self.networks)} networks",
            "one for each, or none",
        )

    def layer(self, number: int) -> str:
        """The layer of network ``number`` as it was asked for."""
        return str(self.layers[number]) if self.layers else "middle"

    def place(self, step: int) -> tuple[int, int]:
        """Which network in order is in use at an outer step, and how many steps it was before."""
        return divmod(step, self.steps_per_network)

    def drawn(self, turn: int, seed: int) -> int:
        """The kind of the network that is in use in a turn."""
        return int(torch.randint(len(self.networks), (1,), generator=generator(seed, "pool", turn, "kind")))
