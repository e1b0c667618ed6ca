"""Ways to differentiate through the student training, behind one signature."""

from distributed_dd.distillation.unroll.detached import Detached
from distributed_dd.distillation.unroll.direct import Direct
from distributed_dd.distillation.unroll.problem import MatchingGradient, Problem, Unroll
from distributed_dd.distillation.unroll.replayed import Replayed
from distributed_dd.distillation.unroll.rows import RowGradients, Rows, Whole
from distributed_dd.distillation.unroll.stored import OnDevice, OnHost, Stored
from distributed_dd.family import Family

UNROLLS = Family("unroll", {"replayed": Replayed, "direct": Direct, "detached": Detached})

__all__ = [
    "UNROLLS", "Detached", "Direct", "MatchingGradient", "OnDevice", "OnHost", "Problem", "Replayed",
    "RowGradients", "Rows", "Stored", "Unroll", "Whole",
]  # fmt: skip
