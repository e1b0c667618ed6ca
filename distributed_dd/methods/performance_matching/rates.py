"""The student's learning rate: fixed, learned, or one learned for each step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from distributed_dd.family import Family, choice
from distributed_dd.learning.update_rules import UPDATE_RULES, Adam, UpdateRule

RATE, RAW = "learning_rate", "raw_step_rates"
"""Names of learned tensors: the rate (), or the numbers (N,) whose softplus are the rates of the steps."""


class Rates(Protocol):
    """Where the rates of student steps come from."""

    def optimizers(self) -> Mapping[str, UpdateRule]:
        """Of what is learned."""
        ...

    def starting(self, rate: float, num_steps: int) -> dict[str, Tensor]:
        """What is learned, before the first outer step."""
        ...

    def read(self, tensors: Mapping[str, Tensor], rate: float, num_steps: int) -> Tensor:
        """The rates of the first ``num_steps`` steps, () or (num_steps,), in the precision of the images."""
        ...

    def slopes(self, tensors: Mapping[str, Tensor], slope: Tensor) -> dict[str, Tensor]:
        """From the gradient by what `read` gave to that by what is learned."""
        ...


@dataclass(frozen=True)
class Fixed:
    """As it is set."""

    def optimizers(self) -> dict[str, UpdateRule]:
        """Nothing is learned."""
        return {}

    def starting(self, rate: float, num_steps: int) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def read(self, tensors: Mapping[str, Tensor], rate: float, num_steps: int) -> Tensor:
        """One for all."""
        return torch.as_tensor(rate, dtype=tensors["images"].dtype, device=tensors["images"].device)

    def slopes(self, tensors: Mapping[str, Tensor], slope: Tensor) -> dict[str, Tensor]:
        """Of nothing."""
        return {}


@dataclass(frozen=True)
class One:
    """One for all steps, learned; the set is evaluated with it."""

    optimizer: UpdateRule = choice(UPDATE_RULES, "optimiser of the rate", Adam(1e-4))

    def optimizers(self) -> dict[str, UpdateRule]:
        """The rate itself."""
        return {RATE: self.optimizer}

    def starting(self, rate: float, num_steps: int) -> dict[str, Tensor]:
        """As it is set."""
        return {RATE: torch.tensor(rate, dtype=torch.float32)}

    def read(self, tensors: Mapping[str, Tensor], rate: float, num_steps: int) -> Tensor:
        """As it was learned."""
        return tensors[RATE]

    def slopes(self, tensors: Mapping[str, Tensor], slope: Tensor) -> dict[str, Tensor]:
        """The same."""
        return {RATE: slope}


@dataclass(frozen=True)
class Each:
    """One for each student step, positive by a softplus (Wang et al., 2018); a usual training has no use for them."""

    optimizer: UpdateRule = choice(UPDATE_RULES, "optimiser of the numbers whose softplus are the rates", Adam(0.01))

    def optimizers(self) -> dict[str, UpdateRule]:
        """The numbers before the softplus."""
        return {RAW: self.optimizer}

    def starting(self, rate: float, num_steps: int) -> dict[str, Tensor]:
        """All equal."""
        return {RAW: _raw(torch.full((num_steps,), rate, dtype=torch.float64)).float()}

    def read(self, tensors: Mapping[str, Tensor], rate: float, num_steps: int) -> Tensor:
        """Those of the first steps."""
        return step_rates(tensors[RAW])[:num_steps]

    def slopes(self, tensors: Mapping[str, Tensor], slope: Tensor) -> dict[str, Tensor]:
        """Through the softplus; 0 for steps that were not made."""
        raw = tensors[RAW]
        slopes = torch.zeros_like(raw)
        slopes[: len(slope)] = slope * raw[: len(slope)].sigmoid()
        return {RAW: slopes}


def step_rates(raw_N: Tensor) -> Tensor:
    """The learning rates (N,) of student steps, from what was learned."""
    return torch.nn.functional.softplus(raw_N)


def _raw(rates: Tensor) -> Tensor:
    """The inverse of the softplus."""
    return rates + torch.log(-torch.expm1(-rates))


RATES: Family = Family("student rates", {"fixed": Fixed, "one": One, "each": Each})
