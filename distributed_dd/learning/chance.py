"""Keyed random generators: the same words give the same draws, in any process, at any time."""

import hashlib

import torch


def generator(seed: int, *key: str | int) -> torch.Generator:
    """A CPU generator that depends on ``seed`` and ``key`` alone.

    Resuming needs no saved random state, and step 500 draws the same whether or not step 499 ran
    here. Draws are made on the CPU so that they are the same bits on every device.
    """
    text = repr((seed, *key)).encode()
    value = int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1
    return torch.Generator().manual_seed(value)


def seed_from(rng: torch.Generator) -> int:
    """A whole number drawn from ``rng``, to seed something that takes only a number."""
    return int(torch.randint(2**62, (1,), generator=rng))


def uniform(rng: torch.Generator, count: int, low: float, high: float) -> torch.Tensor:
    """``count`` float32 numbers, uniform in [low, high)."""
    return low + (high - low) * torch.rand(count, generator=rng)
