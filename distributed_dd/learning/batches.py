"""Batches by passes through the rows in random order, the same on any process."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from distributed_dd.learning.chance import generator


def endless_batch(num_items: int, batch_size: int, number: int, seed: int, *key: str | int) -> Tensor:
    """Indices (B,) of batch ``number``; every pass is a new order, what does not fill a batch is left out.

    A batch is never larger than the items there are.
    """
    batch_size = min(batch_size, num_items)
    number_of_pass, place = divmod(number, num_items // batch_size)
    order = _order(num_items, seed, *key, number_of_pass)
    return order[place * batch_size : (place + 1) * batch_size]


@lru_cache(maxsize=4)
def _order(num_items: int, seed: int, *key: str | int) -> Tensor:
    return torch.randperm(num_items, generator=generator(seed, *key))


def student_batches(num_images: int, batch_size: int, num_steps: int, rng: torch.Generator) -> tuple[Tensor, ...]:
    """The rows of each student step, by passes through the set in random order."""
    per_pass = math.ceil(num_images / batch_size)
    batches: list[Tensor] = []
    for _ in range(math.ceil(num_steps / per_pass)):
        chunks = torch.randperm(num_images, generator=rng).split(batch_size)
        batches += reversed(chunks)  # taken from the end: the short remainder comes first
    return tuple(batches[:num_steps])
