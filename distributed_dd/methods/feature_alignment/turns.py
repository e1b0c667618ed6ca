"""A network of CAFE, and what of it a checkpoint holds."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from distributed_dd.evaluation.product import Tensors
from distributed_dd.methods.feature_alignment.watched import Watched

TURN, NETWORK, WATCHED = "turn", "network", "watched"


@dataclass(frozen=True)
class Turn:
    """Where a distillation is: between turns, or within one.

    Attributes:
        number: of the turn, each with a network of its own. place: updates of the set that it had.
        theta_P: its network as the next outer step needs it; None where the turn begins with a fresh one.
        watched: accuracies of that network in this turn.
    """

    number: int
    place: int
    watched: Watched
    theta_P: Tensor | None = None

    def state(self) -> Tensors:
        """For a checkpoint."""
        state = {TURN: torch.tensor([self.number, self.place])}
        if self.theta_P is not None:
            state[NETWORK] = self.theta_P.clone()
        if self.watched.values:
            state[WATCHED] = torch.tensor(self.watched.values, dtype=torch.float64)
        return state


def turn_in(state: Tensors, nothing: Watched, device: torch.device) -> Turn | None:
    """The inverse of `Turn.state`; None of an empty one."""
    if not state:
        return None
    number, place = state[TURN].tolist()
    values = state[WATCHED].tolist() if WATCHED in state else ()
    theta_P = state.get(NETWORK)
    return Turn(number, place, replace(nothing, values=tuple(values)), None if theta_P is None else theta_P.to(device))
