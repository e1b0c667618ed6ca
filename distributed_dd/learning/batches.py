"""Batches without end: one shuffled pass after the other, each number the same batch on any process."""

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
