"""Pairs of loss and validation accuracy that a sweep has: its trials are diagnosed without new work."""

from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed_dd import config
from distributed_dd.durable import read_json
from distributed_dd.errors import IntegrityError, MissingInputError
from distributed_dd.evaluation.diagnosis import Pair
from distributed_dd.evaluation.series import SMOOTHED
from distributed_dd.evaluation.words import Words
from distributed_dd.nested import at
from distributed_dd.outer.run_folder import Metrics
from distributed_dd.search.study import Study, TrialRecord
from distributed_dd.sweeps.tables import settings_line, size_of

SCORE = "validation_accuracy"


@dataclass(frozen=True, kw_only=True)
class Level:
    """The trials of a study that were scored after the same outer step: these can be compared."""

    images_per_class: int
    outer_step: int
    title: str
    pairs: tuple[Pair, ...]


def is_sweep(folder: Path) -> bool:
    """Whether a folder is that of a sweep that has reported."""
    if not (folder / "report.json").exists():
        return False
    values = read_json(folder / "report.json")
    return isinstance(values, dict) and "studies" in values


def levels_of(folder: Path, words: Mapping[str, Words], say: Callable[[str], None]) -> tuple[str, list[Level]]:
    """The title of the loss, and the levels of all studies in a sweep's folder, by images per class and outer step.

    The loss of a trial is the mean of its last `SMOOTHED` outer steps up to the score. Trials of the same run count
    once; those whose run folder is gone are left out, and said.

    Raises:
        MissingInputError: no trial has both. IntegrityError: the report is no sweep's.
    """
    where = folder / "report.json"
    try:
        studies = [Study.from_json(values) for values in read_json(where)["studies"]]
    except (LookupError, TypeError, AttributeError):
        raise IntegrityError(str(where), "is not the report of a sweep") from None
    levels, gone, title = [], 0, ""
    for study in studies:
        trials = {trial.run: trial for trial in reversed(study.trials) if trial.num_networks and trial.run}
        by_step: dict[int, list[Pair]] = defaultdict(list)
        for run, trial in sorted(trials.items(), key=lambda item: item[1].number):
            path = folder / "trials" / run
            if not (path / "metrics.jsonl").exists():
                gone += 1
                continue
            metric, title = _loss_of(path, words)
            for step, (loss, accuracy) in _scores(Metrics(path / "metrics.jsonl"), metric, study.rungs).items():
                by_step[step].append(_pair(trial, loss, accuracy))
        for step, pairs in sorted(by_step.items()):
            what = f"{size_of(study)}, outer step {step}"
            levels.append(
                Level(images_per_class=study.images_per_class, outer_step=step, title=what, pairs=tuple(pairs))
            )
    if gone:
        say(f"note: the run folders of {gone} trials are gone; they are left out")
    if not levels:
        raise MissingInputError(str(folder / "trials"), "holds no trial with losses and a score")
    return title, levels


def _pair(trial: TrialRecord, loss: float, accuracy: float) -> Pair:
    return Pair(name=f"trial {trial.number}", how=settings_line(trial.settings), loss=loss, accuracies=(accuracy,))


def _loss_of(run: Path, words: Mapping[str, Words]) -> tuple[str, str]:
    """The metric of the loss of a run, and its title.

    Raises:
        IntegrityError: the run does not say its method.
    """
    kind: Any = at(config.read(run / "resolved.yaml"), "method.kind")
    if kind not in words:
        raise IntegrityError(str(run / "resolved.yaml"), "names no method that is known", allowed=", ".join(words))
    return next(iter(words[kind].losses.items()))


def _scores(metrics: Metrics, metric: str, rungs: Sequence[int]) -> dict[int, tuple[float, float]]:
    """Outer step -> smoothed loss and accuracy, at the steps where a study scores."""
    newest: deque[float] = deque(maxlen=SMOOTHED)
    scores = {}
    for line in metrics.read():
        if isinstance(line.get(metric), float | int):
            newest.append(line[metric])
        if line["step"] in rungs and newest and isinstance(line.get(SCORE), float | int):
            scores[line["step"]] = sum(newest) / len(newest), float(line[SCORE])
    return scores
