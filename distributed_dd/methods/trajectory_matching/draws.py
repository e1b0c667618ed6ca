"""All chance of an outer step: which expert, from which epoch, on which batches, with which augmentations."""

import math
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


def student_batches(num_images: int, batch_size: int, num_steps: int, rng: torch.Generator) -> tuple[Tensor, ...]:
    """The rows of each student step, by passes through the set in random order."""
    per_pass = math.ceil(num_images / batch_size)
    batches: list[Tensor] = []
    for _ in range(math.ceil(num_steps / per_pass)):
        chunks = torch.randperm(num_images, generator=rng).split(batch_size)
        batches += reversed(chunks)  # taken from the end: the short remainder comes first
    return tuple(batches[:num_steps])
