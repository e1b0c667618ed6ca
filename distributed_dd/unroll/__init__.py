"""Ways to differentiate through the student training, behind one signature, alone and over ranks."""

from distributed_dd.family import Family
from distributed_dd.unroll.detached import Detached
from distributed_dd.unroll.direct import Direct
from distributed_dd.unroll.divided import Divided
from distributed_dd.unroll.ends import At, EndLoss, Ends, LargestMatching, Matching, Measured, Nearest
from distributed_dd.unroll.exchanged import Exchanged
from distributed_dd.unroll.layout import Layout, span
from distributed_dd.unroll.problem import Problem, Unroll, UnrolledGradient
from distributed_dd.unroll.ranks import Alone, Ranks
from distributed_dd.unroll.replayed import Replayed
from distributed_dd.unroll.rows import RowGradients, Rows, Whole
from distributed_dd.unroll.spread import Spread
from distributed_dd.unroll.stored import OnDevice, OnHost, Stored
from distributed_dd.unroll.student_rules import STUDENT_RULES, Moment, PlainSGD, StudentRule

UNROLLS = Family("unroll", {"replayed": Replayed, "direct": Direct, "detached": Detached})

__all__ = [
    "STUDENT_RULES",
    "UNROLLS",
    "Alone",
    "At",
    "Detached",
    "Direct",
    "Divided",
    "EndLoss",
    "Ends",
    "Exchanged",
    "LargestMatching",
    "Layout",
    "Matching",
    "Measured",
    "Moment",
    "Nearest",
    "OnDevice",
    "OnHost",
    "PlainSGD",
    "Problem",
    "Ranks",
    "Replayed",
    "RowGradients",
    "Rows",
    "Spread",
    "Stored",
    "StudentRule",
    "Unroll",
    "UnrolledGradient",
    "Whole",
    "span",
]
