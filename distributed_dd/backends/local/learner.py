"""The plain twin of a sharded learner: one process, everything whole."""

from collections.abc import Mapping

import torch
from torch import Tensor

from distributed_dd.learning.device import device
from distributed_dd.learning.update_rules import ROWS, UpdateRule, UpdateRules, is_by_row, slot_key, squared_norm
from distributed_dd.outer.checkpoint import Saved
from distributed_dd.outer.learner import Held, require_gradients


class LocalLearner:
    """Learned tensors of a checkpoint, each a parameter with an update rule of its own.

    Where one of them is kept row by row, the checkpoint's other row tensors are held too.
    """

    def __init__(self, saved: Saved, rules: Mapping[str, UpdateRule]) -> None:
        self._rules, names = dict(rules), saved.names()
        by_row = any(map(is_by_row, rules))
        self.num_rows = saved.num_rows if by_row else 0
        others = [name for name in ROWS if by_row and name in names and name not in rules]
        self._unlearned = {name: _tensor(saved, name) for name in others}
        self._learned = {name: torch.nn.Parameter(_tensor(saved, name)) for name in rules}
        self.optimizer = UpdateRules(
            {"params": [parameter], "rule": rules[name], "name": name} for name, parameter in self._learned.items()
        )
        for name, rule in rules.items():
            parameter = self._learned[name]
            state = self.optimizer.state[parameter]
            # All of it exists from the start, so that a checkpoint always holds all of it.
            for slot, key in rule.slots.items():
                ours = slot_key(slot, name)
                state[key] = _tensor(saved, ours) if ours in names else torch.zeros_like(parameter)
            for number, key in rule.numbers.items():  # on the host, where torch's optimisers count
                ours = slot_key(number, name)
                state[key] = saved.value(ours) if ours in names else torch.zeros(())

    def read(self) -> Held:
        """Everything but the classes, whole and not copied."""
        return Held(0, {n: tensor for n, tensor in (self._unlearned | self._now()).items() if n != "classes"})

    def _now(self) -> dict[str, Tensor]:
        return {name: parameter.detach() for name, parameter in self._learned.items()}

    def step(self, gradients: Mapping[str, Tensor], rate_factor: float = 1.0) -> Tensor:
        """One update; the squared norm () of the first rule's gradient."""
        require_gradients(gradients, self._rules)
        for name, parameter in self._learned.items():
            parameter.grad = gradients[name]
        norm = squared_norm(gradients[next(iter(self._rules))])  # before a rule clips it
        self.optimizer.factor = rate_factor
        self.optimizer.step()
        self.optimizer.zero_grad()  # or the gradients would live on beside the next ones
        return norm

    def replace(self, name: str, rows: Tensor) -> None:
        """Put ``rows`` (all of the set) in the place of a row tensor that is not learned."""
        if name in self._rules:
            raise TypeError(f"{name} are learned")
        self._unlearned[name].copy_(rows)

    @torch.no_grad()
    def lift(self, name: str, floor: float) -> bool:
        """Lift a learned number to ``floor`` if it is below; whether it was."""
        value = self._learned[name]
        below = bool(value < floor)  # compared in its own precision, so that the floor itself passes
        if below:
            value.fill_(floor)
        return below

    def value(self, name: str) -> float:
        """A learned number as it is now."""
        return self._learned[name].item()

    def kept(self) -> dict[str, Tensor]:
        """Everything, copied."""
        return {name: value.clone() for name, value in (self._unlearned | self._now()).items()}

    def slots(self) -> dict[str, Tensor]:
        """What update rules keep, by the keys of checkpoints; copies."""
        tensors: dict[str, Tensor] = {}
        for name, rule in self._rules.items():
            state = self.optimizer.state[self._learned[name]]
            keys = {**rule.slots, **rule.numbers}
            tensors |= {slot_key(slot, name): state[key].clone() for slot, key in keys.items()}
        return tensors

    def close(self) -> None:
        """Nothing outlives it."""


def _tensor(saved: Saved, name: str) -> Tensor:
    """A tensor of a checkpoint, whole and on the device."""
    tensor = saved.rows(name, 0, saved.num_rows) if is_by_row(name) else saved.value(name)
    return tensor.to(device())
