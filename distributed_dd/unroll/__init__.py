"""Ways to differentiate through the student training, behind one signature, alone and over ranks."""

from distributed_dd.family import Family
from distributed_dd.unroll.detached import Detached
from distributed_dd.unroll.direct import Direct
from distributed_dd.unroll.exchanged import Exchanged
from distributed_dd.unroll.layout import Layout, span
from distributed_dd.unroll.problem import MatchingGradient, Problem, Unroll
from distributed_dd.unroll.ranks import Alone, Ranks
from distributed_dd.unroll.replayed import Replayed
from distributed_dd.unroll.rows import RowGradients, Rows, Whole
from distributed_dd.unroll.spread import Spread
from distributed_dd.unroll.stored import OnDevice, OnHost, Stored

UNROLLS = Family("unroll", {"replayed": Replayed, "direct": Direct, "detached": Detached})

__all__ = [
    "UNROLLS",
    "Alone",
    "Detached",
    "Direct",
    "Exchanged",
    "Layout",
    "MatchingGradient",
    "OnDevice",
    "OnHost",
    "Problem",
    "Ranks",
    "Replayed",
    "RowGradients",
    "Rows",
    "Spread",
    "Stored",
    "Unroll",
    "Whole",
    "span",
]
