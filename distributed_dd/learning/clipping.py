"""Gradients that are cut to a multiple of their running norm before an update rule sees them."""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from distributed_dd.family import Family, setting
from distributed_dd.learning.update_rules import RUNNING_NORM, Total, UpdateRule, squared_norm


class Clip(Protocol):
    """A bound on the norm of a gradient."""

    def applied_to(self, rule: UpdateRule) -> UpdateRule:
        """The rule, behind this bound."""
        ...


@dataclass(frozen=True)
class NoClip:
    """Gradients as they are."""

    def applied_to(self, rule: UpdateRule) -> UpdateRule:
        """The rule itself."""
        return rule


@dataclass(frozen=True)
class RunningNorm:
    """A multiple of the running mean of norms, the newest among them (RaT-BPTT's reference code, ICLR 2024)."""

    decay: float = setting("decay of the running mean of norms; the first norm begins it", 0.9, at_least=0, below=1)
    multiple: float = setting("largest norm, in units of the running mean", 2.0, above=0)

    def applied_to(self, rule: UpdateRule) -> UpdateRule:
        """The rule, which keeps the running mean too."""
        return Clipped(rule, self)


CLIPS: Family = Family("clipping of gradients", {"none": NoClip, "running_norm": RunningNorm})


@dataclass(frozen=True)
class Clipped:
    """An update rule that follows ``g min(1, multiple * r / |g|)``, with ``r <- decay r + (1 - decay) |g|``.

    The norm is that of all pieces of the tensor, on all processes; r takes it in before it is cut. Begun by the first
    norm that is not 0.
    """

    rule: UpdateRule
    clip: RunningNorm

    @property
    def slots(self) -> Mapping[str, str]:
        """Those of the rule."""
        return self.rule.slots

    @property
    def numbers(self) -> Mapping[str, str]:
        """Those of the rule, and the running mean."""
        return {**self.rule.numbers, RUNNING_NORM: RUNNING_NORM}

    @property
    def learning_rate(self) -> float:
        """That of the rule."""
        return self.rule.learning_rate

    @torch.no_grad()
    def update(self, parameters: Sequence[Tensor], state: MutableMapping, factor: float, total: Total) -> None:
        """Cut the gradient in place, then update; raises ValueError where a piece has none."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if len(gradients) < len(parameters):
            raise ValueError("a piece of a tensor whose gradient is clipped has none")
        square = torch.zeros(1, dtype=torch.float64, device=parameters[0].device)
        for gradient in gradients:
            square += squared_norm(gradient)
        norm = total(square).sqrt().item()
        before = state[parameters[0]].get(RUNNING_NORM, torch.zeros(())).item()
        running = self.clip.decay * before + (1 - self.clip.decay) * norm if before else norm
        largest = self.clip.multiple * running
        if norm > largest:
            for gradient in gradients:
                gradient.mul_(largest / norm)
        self.rule.update(parameters, state, factor, total)
        for parameter in parameters:  # after the rule, which may begin its state only where there is none
            state[parameter][RUNNING_NORM] = torch.tensor(running, dtype=torch.float64)
