"""When an unfinished set is scored on the validation split, by how many networks, and what is called then."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass


def nobody(step: int, accuracy: float) -> None:
    """Do nothing with a score."""


class Evenly(Sequence[int]):
    """Every so-manieth outer step, and the last; as small for a billion steps as for ten."""

    def __init__(self, every: int, last: int) -> None:
        self.inner, self.last = range(every, last, every), last

    def __len__(self) -> int:
        return len(self.inner) + 1

    def __getitem__(self, index):
        return self.last if index in (-1, len(self.inner)) else self.inner[index]

    def __contains__(self, step: object) -> bool:
        return step == self.last or step in self.inner

    def index(self, step: int, *bounds: int) -> int:
        """The place of a step."""
        return len(self.inner) if step == self.last else self.inner.index(step)


@dataclass(frozen=True)
class Judging:
    """The scores of a distillation.

    Attributes:
        steps: outer steps after which the subject is judged, ascending.
        num_networks: fresh networks of each of these scores, the last entry for all further ones; 0 where it is
            only shown.
        hear: told the outer step and the accuracy in [0, 1], once the checkpoint of that step is written. It
            may end the distillation by raising.
    """

    steps: Sequence[int]
    num_networks: tuple[int, ...]
    hear: Callable[[int, float], object] = nobody

    @staticmethod
    def every(
        steps: int, num_outer_steps: int, num_networks: int, hear: Callable[[int, float], object] = nobody
    ) -> "Judging":
        """After every so many outer steps, and after the last."""
        return Judging(Evenly(steps, num_outer_steps), (num_networks,), hear)

    @staticmethod
    def shown(steps: int, num_outer_steps: int) -> "Judging":
        """Shown after every so many outer steps, and after the last; never scored."""
        return Judging.every(steps, num_outer_steps, 0)

    def networks_at(self, step: int) -> int:
        """Fresh networks of the score after outer step ``step``."""
        return self.num_networks[min(self.steps.index(step), len(self.num_networks) - 1)]

    def next_after(self, step: int) -> int:
        """The first outer step after ``step`` that is judged."""
        return self.steps[bisect_right(self.steps, step)]
