"""Whether a loss knows accuracy: pairs of both over many sets, read by Spearman's rank correlation."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from distributed_dd.evaluation.tables import plus_minus

FEWEST, LEVEL = 5, 0.05
"""Pairs without which there is no verdict; the p-value below which a correlation counts."""
CONSTANT = 1e-4
"""A loss is constant where it varies by less than this share of its size."""

Verdict = Literal["knows", "unsure", "contrary", "blind", "alike", "too_few"]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One set with the loss at it and what networks reach that are trained on it.

    Attributes:
        how: how it was chosen. loss: infinite where it is not finite. accuracies: on validation, in [0, 1].
        random: whether it is of random real images. coreset: whether a rule chose its real images.
    """

    name: str
    how: str
    loss: float
    accuracies: tuple[float, ...]
    random: bool = False
    coreset: bool = False

    @property
    def accuracy(self) -> float:
        """The mean over networks."""
        return sum(self.accuracies) / len(self.accuracies)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What pairs say.

    Attributes:
        rho: Spearman's, None where a side is constant or pairs are too few. p: of no correlation, two-sided.
    """

    verdict: Verdict
    num_pairs: int
    low: float
    high: float
    rho: float | None = None
    p: float | None = None

    def line(self, sets: str = "sets") -> str:
        """The verdict in a sentence."""
        span = f"{self.low:.6g} to {self.high:.6g}"
        over = f"over {self.num_pairs} {sets}"
        rho = self.correlation(sets)
        return {
            "knows": f"the loss knows accuracy: {rho}",
            "unsure": f"warning: the loss does not tell good {sets} from bad ones: {rho}",
            "contrary": f"warning: the loss is lower where accuracy is lower: {rho}",
            "blind": f"warning: the objective is blind: the loss is constant ({span}) {over}",
            "alike": f"no verdict: networks reach the same {over}",
            "too_few": f"no verdict: {self.num_pairs} {sets}, and {FEWEST} are needed",
        }[self.verdict]

    def correlation(self, sets: str = "sets") -> str:
        """The number alone; empty where there is none."""
        if self.rho is None or self.p is None:
            return ""
        return f"rho = {self.rho:.2f} (p {_p_value(self.p)}) over {self.num_pairs} {sets}"

    def as_json(self) -> dict[str, Any]:
        """Plain values; a bound that is not finite is None."""
        values = asdict(self)
        return values | {name: finite(values[name]) for name in ("low", "high")}


def read(pairs: Sequence[Pair]) -> Reading:
    """Spearman's correlation of loss and accuracy; a loss that is not finite ranks as the highest."""
    from scipy.stats import spearmanr

    losses, accuracies = [pair.loss for pair in pairs], [pair.accuracy for pair in pairs]
    low, high = min(losses, default=math.nan), max(losses, default=math.nan)
    bare: dict[str, Any] = {"num_pairs": len(pairs), "low": low, "high": high}
    if len(pairs) < FEWEST:
        return Reading(verdict="too_few", **bare)
    if low == high or (math.isfinite(high) and high - low <= CONSTANT * max(abs(low), abs(high))):
        return Reading(verdict="blind", **bare)
    if min(accuracies) == max(accuracies):
        return Reading(verdict="alike", **bare)
    rho, p = (float(value) for value in spearmanr(losses, accuracies))
    p = max(p, 2 / math.factorial(len(pairs)))  # no order of so few is less likely, whatever the approximation says
    verdict: Verdict = "unsure" if p >= LEVEL else "knows" if rho < 0 else "contrary"
    return Reading(verdict=verdict, rho=rho, p=p, **bare)


def pairs_in(values: Mapping[str, Any]) -> list[Pair]:
    """The pairs of a record."""
    return [pair_of(pair) for pair in values["pairs"]]


def readings_of(pairs: Sequence[Pair]) -> tuple[Reading, Reading]:
    """Of all sets, and of random real images alone: these differ less, and no bad set helps."""
    return read(pairs), read([pair for pair in pairs if pair.random])


def best_of(pairs: Sequence[Pair]) -> Pair | None:
    """The coreset that does best on validation."""
    return max((pair for pair in pairs if pair.coreset), key=lambda pair: pair.accuracy, default=None)


def table(pairs: Sequence[Pair], loss: str) -> tuple[list[str], list[list[str]]]:
    """Header and lines, the lowest loss first."""
    header = ["set", "how chosen", loss, "validation, %"]
    lines = [
        [
            pair.name,
            pair.how,
            f"{pair.loss:.5g}" if math.isfinite(pair.loss) else "not finite",
            _percent(pair.accuracies),
        ]
        for pair in sorted(pairs, key=lambda pair: (pair.loss, -pair.accuracy))
    ]
    return header, lines


def _percent(accuracies: Sequence[float]) -> str:
    from statistics import mean, stdev

    spread = stdev(accuracies) if len(accuracies) > 1 else 0.0
    return plus_minus(mean(accuracies), spread, len(accuracies))


def as_values(pair: Pair) -> dict[str, Any]:
    """A pair for ``diagnosis.json``."""
    return {**asdict(pair), "loss": finite(pair.loss), "accuracies": list(pair.accuracies)}


def pair_of(values: Mapping[str, Any]) -> Pair:
    """The inverse of `as_values`."""
    loss = math.inf if values["loss"] is None else values["loss"]
    return Pair(**{**values, "loss": loss, "accuracies": tuple(values["accuracies"])})


def finite(value: float) -> float | None:
    """A number as JSON takes it."""
    return value if math.isfinite(value) else None


def _p_value(p: float) -> str:
    return f"{p:.1g}" if p < 0.001 else f"{p:.2g}"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    for size, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {unit}" if seconds < 10 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
