"""Update rules of learned tensors, by kind, and one torch optimiser that applies several of them."""

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from distributed_dd.family import Family, require, setting

ROWS = ("images", "labels", "targets", "classes")
"""Last parts of the names of tensors that are kept row by row."""

STEP, UPDATES = "step", "updates"
"""The count of updates as torch and as checkpoints name it."""

RUNNING_NORM = "running_norm"
"""The running mean of a gradient's norms, as rules and checkpoints name it."""

Total = Callable[[Tensor], Tensor]
"""From this process's part of a sum to the sum over all that have parts."""


def alone(part: Tensor) -> Tensor:
    """The sum where no other process has a part: the part itself."""
    return part


class UpdateRule(Protocol):
    """How a tensor follows its gradient.

    Attributes:
        slots: what the rule keeps of a tensor, in its shape: name in checkpoints -> key in torch's state.
        numbers: what it keeps of the tensor as one number (), 0 before the first update: likewise.
    """

    @property
    def slots(self) -> Mapping[str, str]: ...

    @property
    def numbers(self) -> Mapping[str, str]: ...

    @property
    def learning_rate(self) -> float: ...

    def update(self, parameters: Sequence[Tensor], state: MutableMapping, factor: float, total: Total) -> None:
        """One update in place.

        Args:
            parameters: one named tensor, in one or more pieces, each with its gradient in ``grad``.
            state: what is kept, by piece and key; changed in place.
            factor: multiplies the learning rate.
            total: sums (n,) over the processes that hold the other pieces of the tensor.
        """
        ...


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum, torch's."""

    slots: ClassVar[Mapping[str, str]] = {"momentum": "momentum_buffer"}
    numbers: ClassVar[Mapping[str, str]] = {}

    learning_rate: float = setting("step size")
    momentum: float = setting("momentum", 0.5, at_least=0, below=1)

    def update(self, parameters: Sequence[Tensor], state: MutableMapping, factor: float, total: Total) -> None:
        """v <- mu v + g;  x <- x - lr v."""
        _step(torch.optim.SGD(parameters, factor * self.learning_rate, self.momentum), state)


@dataclass(frozen=True)
class Adam:
    """Steps of one size along the mean gradient over the root of its mean square (ICLR 2015), torch's."""

    slots: ClassVar[Mapping[str, str]] = {"mean": "exp_avg", "square": "exp_avg_sq"}
    numbers: ClassVar[Mapping[str, str]] = {UPDATES: STEP}

    learning_rate: float = setting("step size", 1e-3, above=0)
    beta1: float = setting("decay of the mean of gradients", 0.9, at_least=0, below=1)
    beta2: float = setting("decay of the mean of their squares", 0.999, at_least=0, below=1)

    def __post_init__(self) -> None:
        _check(self)

    def update(self, parameters: Sequence[Tensor], state: MutableMapping, factor: float, total: Total) -> None:
        """x <- x - lr m / (sqrt(v) + 1e-8), with bias-corrected means m and v."""
        rate, betas = factor * self.learning_rate, (self.beta1, self.beta2)
        _step(torch.optim.Adam(parameters, rate, betas), state)


@dataclass(frozen=True)
class LAMB:
    """Adam's direction, scaled so that a step is a share of the whole tensor's norm (ICLR 2020).

    Without weight decay, and without bounds on the scale: a tensor or a direction of norm 0 has scale 1.
    """

    slots: ClassVar[Mapping[str, str]] = Adam.slots
    numbers: ClassVar[Mapping[str, str]] = Adam.numbers

    learning_rate: float = setting("step size, as a share of the tensor's norm", 3e-4, above=0)
    beta1: float = setting("decay of the mean of gradients", 0.9, at_least=0, below=1)
    beta2: float = setting("decay of the mean of their squares", 0.999, at_least=0, below=1)
    epsilon: float = setting("added to the root of the mean square", 1e-6, above=0)

    def __post_init__(self) -> None:
        _check(self)

    @torch.no_grad()
    def update(self, parameters: Sequence[Tensor], state: MutableMapping, factor: float, total: Total) -> None:
        """x <- x - lr |x| / |d| d, with d = m / (sqrt(v) + epsilon), and norms of the whole tensor."""
        norms = torch.zeros(2, dtype=torch.float64, device=parameters[0].device)
        for parameter in parameters:
            self._follow(parameter, state[parameter])
            direction = self._direction(state[parameter])
            norms += torch.stack([squared_norm(parameter), squared_norm(direction)])
        size, length = total(norms).sqrt().tolist()
        scale = size / length if size and length else 1.0
        for parameter in parameters:
            # Made a second time: kept from above, directions would take the memory of the whole tensor.
            direction = self._direction(state[parameter])
            parameter.add_(direction, alpha=-factor * self.learning_rate * scale)

    def _follow(self, parameter: Tensor, kept: dict[str, Tensor]) -> None:
        """Count the update, and take its gradient into the means."""
        gradient = parameter.grad
        if gradient is None:
            # Left out silently, a piece would change the norm of the whole.
            raise ValueError("a piece of a tensor that LAMB updates has no gradient")
        if not kept:
            kept |= {key: torch.zeros_like(parameter) for key in self.slots.values()}
            kept[STEP] = torch.zeros(())
        kept[STEP] += 1
        kept["exp_avg"].lerp_(gradient, 1 - self.beta1)
        kept["exp_avg_sq"].mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)

    def _direction(self, kept: dict[str, Tensor]) -> Tensor:
        updates = kept[STEP].item()
        root = (kept["exp_avg_sq"] / (1 - self.beta2**updates)).sqrt_().add_(self.epsilon)
        return torch.div(kept["exp_avg"], root, out=root).div_(1 - self.beta1**updates)


UPDATE_RULES = Family("update rule", {"sgd": SGD, "adam": Adam, "lamb": LAMB})


class UpdateRules(torch.optim.Optimizer):
    """A torch optimiser, each of whose groups follows a rule of its own.

    Engines that shard parameters exchange the parameters of a group for pieces of their own, empty groups,
    and ask for a step of some groups alone; all of that is as with torch's optimisers.

    Args:
        groups: each with ``params``, the pieces of one tensor, its ``name``, its ``rule``, and, where it
            is not ``total``, its own ``total``.
        total: sums (n,) over the processes that hold the other pieces of a tensor.

    Attributes:
        factor: multiplies the learning rates of all rules in the next steps.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], total: Total = alone) -> None:
        super().__init__(list(groups), {"total": total})
        self.factor = 1.0

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every group that has parameters; gradients are there already."""
        for group in self.param_groups:
            if group["params"]:
                group["rule"].update(group["params"], self.state, self.factor, group["total"])


def check_learns(rule: UpdateRule, where: str) -> None:
    """Refuse a rule that leaves what it updates as it is.

    Raises:
        ConfigError: its learning rate is 0.
    """
    problem = f"got {rule.learning_rate}: nothing would be learned"
    require(rule.learning_rate > 0, f"{where}.learning_rate", problem, "above 0")


def slot_key(slot: str, name: str) -> str:
    """What a checkpoint calls a slot, or a number, that is kept of a tensor: a contract with files on disk."""
    owner, _, last = name.rpartition(".")
    return f"{owner}.{slot}" if owner and last == "theta" else f"{slot}.{name}"


def is_by_row(name: str) -> bool:
    """Whether a checkpoint keeps a tensor of this name row by row; all others are flat, and whole."""
    parts = name.split(".")
    return parts[-1] in ROWS and parts[0] not in (UPDATES, RUNNING_NORM)


def _step(optimizer: torch.optim.Optimizer, state: MutableMapping) -> None:
    """A step of one of torch's optimisers with state that is kept elsewhere."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = state[parameter]
    optimizer.step()


def squared_norm(tensor: Tensor) -> Tensor:
    """Sum of squares in float64, without a float64 copy of the tensor."""
    return torch.linalg.vector_norm(tensor, dtype=torch.float64).square()


def _check(rule: Adam | LAMB) -> None:
    require(rule.learning_rate > 0, "learning_rate", f"got {rule.learning_rate}", "above 0")
    for name in ("beta1", "beta2"):
        require(0 <= getattr(rule, name) < 1, name, f"got {getattr(rule, name)}", "0 or more, below 1")
