"""The share of a distillation that falls to one process, for estimates of memory."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sharing:
    """A process among others.

    Attributes:
        who: as a person calls it.
        num_ranks: ranks that keep a part of the set each. group_size: ranks that share a batch, and what an
            unroll stores.
        copies: of its part of the set, momenta and gradients included (measured: docs/use/sharded.md).
    """

    who: str
    num_ranks: int
    group_size: int
    copies: float


ALWAYS_TOLD = (
    Sharing("one process", 1, 1, 3.0),
    Sharing("each of 4 ranks that share a batch and own rows", 4, 4, 5.0),
    Sharing("each of 16", 16, 16, 5.0),
)
