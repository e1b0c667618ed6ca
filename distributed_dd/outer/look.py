"""A first look at a method's loss: what is needed to ask it of any set, before anything is distilled."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

Tensors = dict[str, Tensor]
Losses = Callable[[range, Sequence[Mapping[str, Tensor]]], list[list[float]]]
"""The losses (sets, steps) of a stretch of outer steps at each of several sets of one shape, which are not changed.

A process without the state of earlier steps can begin the stretch. Processes can send it.
"""


@dataclass(frozen=True, kw_only=True)
class Look:
    """A method's loss, ready to be asked.

    Attributes:
        start: the set before the first outer step, class by class.
        labels: label logits (n, K) of all training images, as the method labels the images that it starts from.
        losses: asks.
        targets: (n, K) of all training images, where the set learns such in place of labels.
        turn: outer steps that build on each other: a stretch begins at a multiple of it.
    """

    start: Tensors
    labels: Tensor
    losses: Losses
    targets: Tensor | None = None
    turn: int = 1


def draws_of(num_outer_steps: int, turn: int, num_draws: int, steps_per_draw: int) -> list[range]:
    """Stretches of outer steps, spread evenly over a distillation, each within one turn; fewer where it is short."""
    num_turns = max(1, num_outer_steps // turn)
    num_draws = min(num_draws, num_turns)
    firsts = [turn * ((2 * number + 1) * num_turns // (2 * num_draws)) for number in range(num_draws)]
    return [range(first, min(first + min(steps_per_draw, turn), num_outer_steps)) for first in firsts]
