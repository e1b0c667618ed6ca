"""How large an experiment is, for an estimate, and what it takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distributed_dd.data import Facts
from distributed_dd.evaluation.scoring import Evaluation
from distributed_dd.learning.networks import Network
from distributed_dd.outer.sharing import Sharing


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The size of an experiment.

    Attributes:
        missing: how much of the prelude is still to be made, as `Prelude.missing`; None: all of it.
        asked: the sharing whose memory is listed first.
    """

    facts: Facts
    network: Network
    images_per_class: int
    num_outer_steps: int
    evaluate: Evaluation
    missing: float | None = None
    asked: Sharing | None = None


@dataclass(frozen=True)
class Work:
    """What an experiment takes, before anything starts.

    Attributes:
        lines: disk and memory, a line a topic.
        operations: floating-point operations by stage; convolutions and products only.
    """

    lines: Sequence[str]
    operations: Mapping[str, float]
