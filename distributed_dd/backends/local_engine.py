"""The plain twin of a sharded engine: one process, torch's SGD."""

from collections.abc import Mapping

import torch
from torch import Tensor

from distributed_dd.distillation.synthetic import SyntheticSet
from distributed_dd.distillation.unroll import MatchingGradient


class LocalEngine:
    """Updates the synthetic set with SGD and momentum, one parameter group for each learned thing."""

    def __init__(self, synthetic: SyntheticSet, groups: list[dict]) -> None:
        self.synthetic = synthetic
        self.optimizer = torch.optim.SGD(groups, lr=1.0)
        # Momenta exist from the start, so that a checkpoint always holds all of them.
        for parameter in self._named().values():
            self.optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    def step(self, gradient: MatchingGradient) -> None:
        """One update of images, labels and learning rate."""
        counts = [len(block) for block in self.synthetic.blocks]
        for block, part in zip(self.synthetic.blocks, gradient.images.split(counts), strict=True):
            block.grad = part
        self.synthetic.labels.grad = gradient.labels
        self.synthetic.learning_rate.grad = gradient.learning_rate
        self.optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """Momenta by name, on the CPU."""
        return {
            name: self.optimizer.state[parameter]["momentum_buffer"].cpu().clone()
            for name, parameter in self._named().items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Copy momenta in."""
        for name, parameter in self._named().items():
            self.optimizer.state[parameter]["momentum_buffer"].copy_(state[name])

    def _named(self) -> dict[str, torch.nn.Parameter]:
        named = {}
        for group in self.optimizer.param_groups:
            for index, parameter in enumerate(group["params"]):
                named[f"{group['name']}.{index}"] = parameter
        return named
