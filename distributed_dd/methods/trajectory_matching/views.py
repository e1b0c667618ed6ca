"""How experts see the real training images: features, and how hard each image is for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distributed_dd.data import Images
from distributed_dd.errors import ConfigError
from distributed_dd.family import require
from distributed_dd.learning.chance import generator
from distributed_dd.learning.curriculum import el2n
from distributed_dd.learning.device import device
from distributed_dd.learning.flat import unflatten
from distributed_dd.learning.loop import predict
from distributed_dd.learning.networks import Network, initialised
from distributed_dd.learning.networks.blocks import FeatureNetwork, block_names
from distributed_dd.outer.ports import Cluster, Progress
from distributed_dd.trajectories.store import TrajectoryStore
from distributed_dd.trajectories.trajectory import Trajectory

VIEWS = ("features", "el2n", "forgetting")
EARLY = 10
"""Epoch at which EL2N is taken, as its paper does, or the kept one that is nearest."""
MOST_EXPERTS, MOST_EPOCHS = 5, 20
"""How many experts are asked, and at how many of their epochs."""
BATCH = 1024


@dataclass(frozen=True)
class Seeing:
    """What every task needs.

    Attributes:
        train: the images, as networks see them.
    """

    store: TrajectoryStore
    network: Network
    train: Images
    num_classes: int

    def layers(self) -> nn.Module:
        """The network's layers; their values are to be loaded."""
        shape = self.train.images.shape
        return initialised(self.network, (shape[1], shape[2], shape[3]), self.num_classes, generator(0, "layout"))


def view(name: str, seeing: Seeing, num_experts: int, cluster: Cluster, progress: Progress) -> Tensor:
    """A row (n, ..) for each training image: an expert's ``features``, or its ``el2n`` or ``forgetting`` (n, 1).

    Raises:
        ConfigError: the network does not say where its features end, or too few epochs of experts are kept.
    """
    if name == "features":
        ((_, features),) = cluster.map(_features, [0], seeing)
        return features
    experts = range(min(num_experts, MOST_EXPERTS))
    trajectory = seeing.store.open(0)
    epochs = [_early(trajectory)] if name == "el2n" else _spread(trajectory)
    tasks = [(expert, epoch) for expert in experts for epoch in epochs]
    answers: dict[tuple[int, int], Tensor] = {}
    with progress.bar(f"experts look at the images: {name}", len(tasks)) as bar:
        for number, answer in cluster.map(_scores if name == "el2n" else _right, tasks, seeing):
            answers[tasks[number]] = answer
            bar.advance()
    if name == "el2n":
        return torch.stack([answers[task] for task in tasks]).mean(0).unsqueeze(1)
    counts = [forgotten(torch.stack([answers[expert, epoch] for epoch in epochs])) for expert in experts]
    return torch.stack(counts).sum(0).double().unsqueeze(1)


def early(num_epochs: int) -> int:
    """The epoch at which experts of so many rank images."""
    return min(EARLY, num_epochs)


def hardness(seeing: Seeing, num_experts: int, epoch: int) -> Tensor:
    """EL2N (n,) of the training images, averaged over experts after ``epoch``; in this process."""
    return torch.stack([_scores((expert, epoch), seeing) for expert in range(min(num_experts, MOST_EXPERTS))]).mean(0)


def forgotten(right_En: Tensor) -> Tensor:
    """How often each image was right and then wrong, (n,); one that was never right counts as always forgotten."""
    lost_n = (right_En[:-1] & ~right_En[1:]).sum(0)
    return torch.where(right_En.any(0), lost_n, len(right_En))


def _kept(trajectory: Trajectory) -> list[int]:
    return [epoch for epoch in range(1, int(trajectory.num_epochs) + 1) if trajectory.has(epoch)]


def _early(trajectory: Trajectory) -> int:
    return min(_kept(trajectory), key=lambda epoch: (abs(epoch - EARLY), epoch))


def _spread(trajectory: Trajectory) -> Sequence[int]:
    """Kept epochs, thinned evenly."""
    kept = _kept(trajectory)
    require(
        len(kept) >= 3,
        "evaluate.controls",
        f"'forgetting' needs experts at three epochs or more, {len(kept)} are kept",
        fix="experts.trajectory.keep_epochs=all, or leave it out",
    )
    places = torch.linspace(0, len(kept) - 1, min(len(kept), MOST_EPOCHS)).round().long()
    return [kept[place] for place in places.tolist()]


def _logits(task: tuple[int, int], seeing: Seeing) -> Tensor:
    """Logits (n, K) of an expert after so many epochs."""
    expert, epoch = task
    layers = seeing.layers().to(device())
    unflatten(seeing.store.open(expert).checkpoint(epoch), layers)
    return predict(layers, seeing.train.images.to(device())).cpu()


def _scores(task: tuple[int, int], seeing: Seeing) -> Tensor:
    return el2n(_logits(task, seeing), seeing.train.targets)


def _right(task: tuple[int, int], seeing: Seeing) -> Tensor:
    return _logits(task, seeing).argmax(1) == seeing.train.targets


def _features(expert: int, seeing: Seeing) -> Tensor:
    """What goes into the classifier of a trained expert, (n, F)."""
    layers: Any = seeing.layers().to(device())
    if not (known := block_names(layers)):
        raise ConfigError(
            "evaluate.controls",
            "the network does not say where its features end",
            allowed="with a network with blocks, such as convnet",
        )
    network = FeatureNetwork(layers.eval(), known[-1])
    theta_P = seeing.store.open(expert).checkpoint(-1).to(device())
    with torch.no_grad():
        parts = [network.look(theta_P, batch.to(device()))[1] for batch in seeing.train.images.split(BATCH)]
    return torch.cat([part.flatten(1).cpu() for part in parts])
