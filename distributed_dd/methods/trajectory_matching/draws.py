"""All chance of an outer step: which expert, from which epoch, on which batches, with which augmentations."""

from dataclasses import dataclass

import torch
from torch import Tensor

from distributed_dd.learning.augment import Drawn
from distributed_dd.learning.chance import generator


@dataclass(frozen=True)
class Draw:
    """All chance of one segment of an outer step."""

    expert: int
    start_epoch: float
    batches: tuple[Tensor, ...]
    augment: tuple[Drawn, ...]


def expert_in_turn(number: int, num_experts: int, seed: int) -> int:
    """The expert of segment ``number``, counted over all outer steps: in every pass each comes once."""
    number_of_pass, place = divmod(number, num_experts)
    order = torch.randperm(num_experts, generator=generator(seed, "expert order", number_of_pass))
    return int(order[place])
