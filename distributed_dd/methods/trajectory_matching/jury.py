"""Experts applied to images: for starting images, soft labels and their own accuracy."""

from functools import lru_cache

import torch
from torch import Tensor

from distributed_dd.data import Images
from distributed_dd.learning.chance import generator
from distributed_dd.learning.device import device
from distributed_dd.learning.flat import unflatten
from distributed_dd.learning.loop import accuracy, predict
from distributed_dd.learning.networks import Network, initialised
from distributed_dd.methods.trajectory_matching.labels import ExpertEnsemble, Labels
from distributed_dd.methods.trajectory_matching.starts import Start
from distributed_dd.trajectories.store import TrajectoryStore


class Jury:
    """The experts of a store, asked about the training images."""

    def __init__(
        self, store: TrajectoryStore, num_experts: int, network: Network, train: Images, num_classes: int
    ) -> None:
        self.store, self.num_experts, self.train, self.num_classes = store, num_experts, train, num_classes
        shape = (train.images.shape[1], train.images.shape[2], train.images.shape[3])
        self._layers = initialised(network, shape, num_classes, generator(0, "layout")).to(device())
        self._images = train.images.to(device())

    def logits(self, expert: int, epoch: int) -> Tensor:
        """One expert's logits (n, K) on all training images."""
        unflatten(self.store.open(expert).checkpoint(epoch), self._layers)
        return predict(self._layers, self._images).cpu()

    def start(self, start: Start, per_class: int, rng: torch.Generator) -> Tensor:
        """Indices of the starting images, class by class."""
        epoch = getattr(start, "epoch", -1)

        @lru_cache(maxsize=4)
        def predictions(expert: int) -> Tensor:
            return self.logits(expert, epoch).argmax(1)

        images, targets = self.train.images, self.train.targets
        return start.choose(images, targets, per_class, predictions, self.num_experts, rng)

    def labels(self, labels: Labels) -> Tensor:
        """Label logits (n, K) of every training image."""
        epoch = getattr(labels, "epoch", -1)
        asked = min(getattr(labels, "num_experts", None) or self.num_experts, self.num_experts)
        answers = (self.logits(expert, epoch) for expert in range(asked))
        return labels.start(self.train.targets, self.num_classes, answers)

    def accuracies(self, judge: Images) -> list[float]:
        """Accuracy of every expert's last checkpoint on ``judge``, in [0, 1]."""
        images, targets = judge.images.to(device()), judge.targets.to(device())
        values = []
        for expert in range(self.num_experts):
            unflatten(self.store.open(expert).checkpoint(-1), self._layers)
            values.append(accuracy(self._layers, images, targets))
        return values

    def soft_labels(self, labels: Labels) -> Tensor:
        """The experts' soft labels, also where the method itself uses hard ones."""
        own = isinstance(labels, ExpertEnsemble)
        return self.labels(labels if own else ExpertEnsemble())
