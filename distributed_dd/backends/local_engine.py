"""The plain twin of a sharded engine: one process, torch's SGD, the whole set."""

from collections.abc import Mapping

import torch
from torch import Tensor

from distributed_dd.distillation.methods.trajectory_matching import ParameterSGD
from distributed_dd.distillation.unroll import MatchingGradient
from distributed_dd.distillation.unroll.problem import squared_norm
from distributed_dd.stages.checkpoint import SET, Saved
from distributed_dd.stages.material import device
from distributed_dd.stages.ports import Held

MOMENTUM = "momentum_buffer"


class LocalEngine:
    """Updates the synthetic set with SGD and momentum, one parameter group for each learned thing."""

    def __init__(self, saved: Saved, optimizers: Mapping[str, ParameterSGD]) -> None:
        whole = {name: tensor.to(device()) for name, tensor in saved.whole().items()}
        self.num_rows = saved.num_rows
        self._classes = whole.pop("classes")
        self._set = whole
        self._learned = {name: torch.nn.Parameter(whole[name]) for name in optimizers}
        groups = [
            {"params": [self._learned[name]], "lr": sgd.learning_rate, "momentum": sgd.momentum}
            for name, sgd in optimizers.items()
        ]
        self._optimizer = torch.optim.SGD(groups, lr=1.0)
        names = saved.names()
        for name, parameter in self._learned.items():
            momentum = torch.zeros_like(parameter)
            if f"momentum.{name}" in names:
                momentum.copy_(_stored(saved, f"momentum.{name}"))
            # Momenta exist from the start, so that a checkpoint always holds all of them.
            self._optimizer.state[parameter][MOMENTUM] = momentum

    def read(self) -> Held:
        """The whole set, not copied."""
        now = {**self._set, **{name: parameter.detach() for name, parameter in self._learned.items()}}
        return Held(0, now["images"], now["labels"], now["learning_rate"])

    def renew_labels(self, labels: Tensor) -> None:
        """Replace the labels."""
        self._set["labels"].copy_(labels)

    def step(self, gradient: MatchingGradient) -> Tensor:
        """One update of images, labels and learning rate; the squared norm of the image gradient."""
        for name, parameter in self._learned.items():
            parameter.grad = getattr(gradient, name)
        self._optimizer.step()
        self._optimizer.zero_grad()  # or the gradients would live on beside the next ones
        return squared_norm(gradient.images)

    @torch.no_grad()
    def keep_rate(self, floor: float) -> bool:
        """Lift the student learning rate to ``floor`` if it is below."""
        rate = self._learned["learning_rate"]
        below = bool(rate < floor)  # compared in float32, so that the floor itself passes
        if below:
            rate.fill_(floor)
        return below

    def rate(self) -> float:
        """The student learning rate."""
        return self._learned["learning_rate"].item()

    def kept(self) -> dict[str, Tensor]:
        """The whole set."""
        now = self.read()
        tensors = {name: getattr(now, name).clone() for name in SET if name != "classes"}
        return tensors | {"classes": self._classes.clone()}

    def momenta(self) -> dict[str, Tensor]:
        """Momenta by what they belong to."""
        state = self._optimizer.state
        return {name: state[parameter][MOMENTUM].clone() for name, parameter in self._learned.items()}


def _stored(saved: Saved, name: str) -> Tensor:
    rate = name.endswith("learning_rate")
    return saved.value(name) if rate else saved.rows(name, 0, saved.num_rows)
