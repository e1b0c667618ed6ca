"""When CAFE's loops end: the last few accuracies of a network, and how far they lie apart."""

from dataclasses import dataclass, replace

CARRIED = 0.1
"""Of the value before, that the next one has in it."""


@dataclass(frozen=True)
class Watched:
    """Values that a loop has watched, of which the newest decide.

    Attributes:
        length: values that must be there before anything is decided.
        carried: whether a value is the accuracy and a tenth of the value before, as in the published code, where that
            begins at 0; otherwise it is the accuracy. The first value so lacks a tenth that the others have.
        values: the newest ``length`` of them, or fewer, where there are not so many.
    """

    length: int
    carried: bool
    values: tuple[float, ...] = ()

    def after(self, accuracy: float) -> "Watched":
        """With one more; the oldest goes, where there are more than count."""
        before = self.values[-1] if self.carried and self.values else 0.0
        return replace(self, values=(*self.values, accuracy + CARRIED * before)[-self.length :])

    @property
    def spread(self) -> float | None:
        """The largest less the smallest; None where there are too few values."""
        return max(self.values) - min(self.values) if len(self.values) == self.length else None

    def steady(self, below: float) -> bool:
        """Whether the values lie together more closely than this: a turn ends."""
        return self.spread is not None and self.spread < below

    def apart(self, above: float) -> bool:
        """Whether the values lie further apart than this: the epochs of a network on the set end."""
        return self.spread is not None and self.spread > above
