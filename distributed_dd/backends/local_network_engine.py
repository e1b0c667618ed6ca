"""A network that learns in one process: the plain twin of one whose state DeepSpeed shards."""

import torch
from torch import Tensor

from distributed_dd.distillation.methods.generative import Adam
from distributed_dd.stages.checkpoint import Saved
from distributed_dd.stages.material import device

STATE = {"mean": "exp_avg", "square": "exp_avg_sq"}
"""Adam's state as checkpoints and as torch name it."""


class LocalNetworkEngine:
    """Flat parameters and torch's Adam."""

    def __init__(self, saved: Saved, name: str, adam: Adam) -> None:
        self._theta = torch.nn.Parameter(saved.value(f"{name}.theta").to(device()))
        self._optimizer = torch.optim.Adam([self._theta], adam.learning_rate, (adam.beta1, adam.beta2))
        self._optimizer.state[self._theta] |= state_from(saved, name)

    def read(self) -> Tensor:
        """All parameters, not copied: good until the next step."""
        return self._theta.detach()

    def step(self, gradient_P: Tensor) -> None:
        """One update."""
        self._theta.grad = gradient_P
        self._optimizer.step()
        self._optimizer.zero_grad()

    def state(self) -> dict[str, Tensor]:
        """Parameters and Adam's state; copies."""
        state = self._optimizer.state[self._theta]
        found = {name: state[key].clone() for name, key in STATE.items()}
        return {"theta": self.read().clone(), "updates": state["step"].clone(), **found}


def state_from(saved: Saved, name: str) -> dict[str, Tensor]:
    """Adam's state in a checkpoint, on the device, as torch keeps it; the count stays on the host."""
    state = {key: saved.value(f"{name}.{ours}").to(device()) for ours, key in STATE.items()}
    return {"step": saved.value(f"{name}.updates"), **state}
