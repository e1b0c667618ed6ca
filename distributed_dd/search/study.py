"""The records of the trials of one study, and the choice of the best."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import mean, stdev
from typing import Any, Literal

Status = Literal["finished", "stopped", "diverged", "failed"]
BASE = "base"


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial.

    Attributes:
        number: in order of proposal, from 0.
        settings: the fields it set, by ``key.path``.
        run: name of its run folder.
        outer_step: the last one after which it was scored.
        accuracy, num_networks: of that score.
        base: whether these are the settings of the base configuration.
        span: where it lies on the method's axis, such as first and last start epoch; None without one.
        final: accuracies of the fresh networks of the last choice, for finalists.
    """

    number: int
    settings: dict[str, Any]
    run: str
    status: Status
    outer_step: int = 0
    accuracy: float = 0.0
    num_networks: int = 0
    base: bool = False
    span: tuple[float, float] | None = None
    message: str = ""
    final: tuple[float, ...] = ()

    @property
    def final_mean(self) -> float:
        """Accuracy that decides between finalists."""
        return mean(self.final)

    @property
    def final_std(self) -> float:
        """Over the networks of the last choice."""
        return stdev(self.final) if len(self.final) > 1 else 0.0


@dataclass(frozen=True)
class Study:
    """All trials for one number of images per class, and the number of the winner."""

    images_per_class: int
    rungs: tuple[int, ...]
    trials: tuple[TrialRecord, ...]
    winner: int | None = None

    @property
    def best(self) -> TrialRecord | None:
        """The winner's record."""
        return next((trial for trial in self.trials if trial.number == self.winner), None)

    @property
    def base(self) -> TrialRecord | None:
        """The record of the base configuration, where it was among the trials."""
        return next((trial for trial in self.trials if trial.base), None)

    def ranked(self) -> list[TrialRecord]:
        """Best first: finalists by the last choice, then by how far they got and how well they did there."""
        return sorted(
            self.trials,
            key=lambda t: (
                t.number == self.winner,
                bool(t.final),
                t.final_mean if t.final else 0.0,
                _is_sound(t),
                t.outer_step,
                t.accuracy,
            ),
            reverse=True,
        )

    def count(self, status: Status) -> int:
        """Trials that ended so."""
        return sum(trial.status == status for trial in self.trials)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> "Study":
        """The inverse of `as_json`."""
        trials = tuple(map(_record, values["trials"]))
        return Study(values["images_per_class"], tuple(values["rungs"]), trials, values["winner"])


def _record(values: Mapping[str, Any]) -> TrialRecord:
    """A record from plain values; what is now ``span`` was once called ``starts``."""
    rest = {key: value for key, value in values.items() if key not in ("span", "starts", "final")}
    span = values.get("span", values.get("starts"))
    return TrialRecord(**rest, span=tuple(span) if span else None, final=tuple(values["final"]))


def finalists(trials: Sequence[TrialRecord], num: int) -> list[TrialRecord]:
    """The best of those that got furthest, and the base configuration if it got as far; each run once."""
    sound = [trial for trial in trials if _is_sound(trial)]
    furthest = max((trial.outer_step for trial in sound), default=0)
    level = sorted((t for t in sound if t.outer_step == furthest), key=lambda t: t.accuracy, reverse=True)
    different = list({trial.run: trial for trial in reversed(level)}.values())[::-1]
    return different[:num] + [trial for trial in different[num:] if trial.base]


def chosen(study: Study, finals: Mapping[int, Sequence[float]]) -> Study:
    """The study with the accuracies of the last choice, by number of trial; the best mean wins."""
    trials = tuple(
        replace(trial, final=tuple(finals[trial.number])) if trial.number in finals else trial for trial in study.trials
    )
    contenders = [trial for trial in trials if trial.final]
    best = max(contenders, key=lambda trial: trial.final_mean, default=None)
    return replace(study, trials=trials, winner=best.number if best else None)


def _is_sound(trial: TrialRecord) -> bool:
    return trial.status in ("finished", "stopped") and trial.outer_step > 0
