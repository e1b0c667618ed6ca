"""How far a student can go beside its expert, told from the settings alone, before anything is trained.

Steps times rate is the length of a path whose gradients have length one. In all published settings the student's is
0.01 to 0.3 of the expert's. A student that goes further than the expert leaves the segment: the matching loss, which
is 1 for a student that stays where it starts, is above the gate from the first outer step on, and nothing is learned.
"""

from math import ceil

from distributed_dd.learning.optimizers import GSAM, SGD
from distributed_dd.methods.trajectory_matching.settings import TrajectorySettings

FURTHEST, USUAL = 1.0, 0.2


def reach(method: TrajectorySettings, num_train: int) -> float | None:
    """The student's steps times its rate, as a share of the expert's; None where its steps have no one rate."""
    rule = method.experts.optimizer
    if not isinstance(rule, SGD | GSAM):
        return None
    return method.student_steps * method.student_learning_rate / _of_expert(method, rule.learning_rate, num_train)


def _of_expert(method: TrajectorySettings, rate: float, num_train: int) -> float:
    return method.expert_epochs * ceil(num_train / method.experts.batch_size) * rate


def notes_of(method: TrajectorySettings, num_train: int) -> list[str]:
    """A line where the student would leave the segment, with a rate at which it would not."""
    share = reach(method, num_train)
    if share is None or share <= FURTHEST:
        return []
    rate = float(f"{method.student_learning_rate * USUAL / share:.1g}")
    return [
        f"note: the student's {method.student_steps} steps at {method.student_learning_rate:g} reach {share:.1f} times "
        "as far as the expert in a segment (published settings: 0.01 to 0.3 times): the matching loss may never come "
        f"below method.gate; try method.student_learning_rate={rate:g}, or more method.expert_epochs"
    ]
