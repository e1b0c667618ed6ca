"""What of a method can be divided over ranks. Data: each engine has one check that reads it."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Batch:
    """Rows that the ranks of a group share: each needs one at least.

    Attributes:
        field: of the configuration, which says how many. what: as a person calls it. num_rows: how many.
    """

    field: str
    what: str
    num_rows: int


@dataclass(frozen=True)
class Obstacle:
    """What keeps a batch from being divided, and what could be done."""

    field: str
    reason: str
    allowed: str
    fix: str = ""


@dataclass(frozen=True, kw_only=True)
class Division:
    """What can be divided.

    Attributes:
        num_rows: of the synthetic set; 0 where rows are not what is learned.
        pictures: rows of it that are kept as one.
        num_segments: independent parts of one outer step, whose gradients are averaged; None: there are none.
        segments_field: of the configuration, which says how many.
        batches: that ranks share.
        obstacles: to sharing a batch, or to keeping rows apart.
        mixing: as `obstacles`, to sharing a batch alone: layers that look at several rows at once.
    """

    num_rows: int
    batches: Sequence[Batch] = ()
    num_segments: int | None = None
    segments_field: str = ""
    obstacles: Sequence[Obstacle] = ()
    mixing: Sequence[Obstacle] = ()
    pictures: int = 1


DIRECT_UNROLL = Obstacle(
    "method.unroll",
    "the direct unroll keeps one graph of the whole batch, which cannot be divided over ranks",
    "kind: replayed, which computes the same gradient; or split=segments with ZeRO stage 0 to 2",
)


def mixing_layers(network: nn.Module, field: str, fix: str = "") -> list[Obstacle]:
    """The first layer of a network that normalises over the batch, as an obstacle; none where there is none."""
    names = [n for n, m in network.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    reason = "normalises over the batch, of which a rank sees a part"
    allowed = "norms of each image alone, such as instance or group norm"
    return [Obstacle(field, f"layer {name} {reason}", allowed, fix) for name in names[:1]]
