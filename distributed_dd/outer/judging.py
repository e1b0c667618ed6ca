"""When an unfinished set is scored on the validation split, by how many networks, and what is called then."""

from collections.abc import Callable
from dataclasses import dataclass


def nobody(step: int, accuracy: float) -> None:
    """Do nothing with a score."""


@dataclass(frozen=True)
class Judging:
    """The scores of a distillation.

    Attributes:
        steps: outer steps after which the subject is judged, ascending.
        num_networks: fresh networks of each of these scores; 0 where it is only shown.
        hear: told the outer step and the accuracy in [0, 1], once the checkpoint of that step is written. It
            may end the distillation by raising.
    """

    steps: tuple[int, ...]
    num_networks: tuple[int, ...]
    hear: Callable[[int, float], object] = nobody

    @staticmethod
    def every(
        steps: int, num_outer_steps: int, num_networks: int, hear: Callable[[int, float], object] = nobody
    ) -> "Judging":
        """After every so many outer steps, and after the last."""
        due = (*range(steps, num_outer_steps, steps), num_outer_steps)
        return Judging(due, (num_networks,) * len(due), hear)

    @staticmethod
    def shown(steps: int, num_outer_steps: int) -> "Judging":
        """Shown after every so many outer steps, and after the last; never scored."""
        return Judging.every(steps, num_outer_steps, 0)

    def networks_at(self, step: int) -> int:
        """Fresh networks of the score after outer step ``step``."""
        return self.num_networks[self.steps.index(step)]

    def next_after(self, step: int) -> int:
        """The first outer step after ``step`` that is judged."""
        return next(due for due in self.steps if due > step)
