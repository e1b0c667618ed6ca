"""One outer step divided over ranks: who computes what, who keeps what, and what goes between them."""

from distributed_dd.distillation.sharded.layout import Layout, span
from distributed_dd.distillation.sharded.ranks import Alone, Ranks
from distributed_dd.distillation.sharded.rows import Exchanged
from distributed_dd.distillation.sharded.stored import Spread

__all__ = ["Alone", "Exchanged", "Layout", "Ranks", "Spread", "span"]
