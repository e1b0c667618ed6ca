"""A finished sweep for people and programs: tables, and the best configuration of each study as a file."""

import csv
import io
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from distributed_dd.evaluation.tables import markdown, plus_minus
from distributed_dd.evaluation.words import SweepAxis
from distributed_dd.methods.names import short
from distributed_dd.search.study import Study, TrialRecord

SCHEMA = 1
COLUMNS = (
    "images_per_class",
    "trial",
    "base",
    "best",
    "status",
    "outer_step",
    "validation_accuracy",
    "num_networks",
    "final_mean",
    "final_std",
    "final_networks",
)
"""Of a table of trials, before their settings and their run."""


def settings_line(settings: Mapping[str, Any]) -> str:
    """Settings in a line."""
    return ", ".join(f"{short(key)} {_value(value)}" for key, value in settings.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value.get("kind", dict(value)))
    return f"{value:g}" if isinstance(value, float) else str(value)


def table(study: Study) -> tuple[list[str], list[list[str]]]:
    """Header and rows, best first."""
    keys = list(dict.fromkeys(key for trial in study.trials for key in trial.settings))
    header = [
        "trial",
        *(short(key) for key in keys),
        "outer steps",
        "validation, %",
        "last choice, %",
        "ended",
    ]
    return header, [_row(trial, keys, study) for trial in study.ranked()]


def _row(trial: TrialRecord, keys: Sequence[str], study: Study) -> list[str]:
    scored = f"{100 * trial.accuracy:.1f} ({trial.num_networks})" if trial.num_networks else "-"
    final = "-"
    if trial.final:
        final = f"{_final(trial)} ({len(trial.final)})"
    ended = trial.status + (", best" if trial.number == study.winner else "")
    return [
        f"{trial.number}{' (base)' if trial.base else ''}",
        *(_value(trial.settings[key]) if key in trial.settings else "-" for key in keys),
        str(trial.outer_step),
        scored,
        final,
        ended,
    ]


def size_of(study: Study) -> str:
    """What the study is about."""
    return f"{study.images_per_class} images per class" if study.images_per_class > 1 else "1 image per class"


def verdict(study: Study) -> str:
    """How the winner stands to the base, in a sentence."""
    best, base = study.best, study.base
    what = size_of(study)
    if best is None:
        return f"{what}: no trial could be scored"
    score = f"{_final(best)} % on validation"
    if best.outer_step < study.rungs[-1]:
        score += f", after {best.outer_step} of {study.rungs[-1]} outer steps: no trial got further in time"
    if base is None or not base.final:
        return f"{what}: the best is trial {best.number} with {score}; the base was not among the trials"
    if best.base:
        return f"{what}: nothing did better than the base itself, with {score}"
    return f"{what}: the best is trial {best.number} with {score}, the base has {_final(base)} %"


def _final(trial: TrialRecord) -> str:
    return plus_minus(trial.final_mean, trial.final_std, len(trial.final))


def moves(studies: Sequence[Study], axis: SweepAxis | None) -> str:
    """Whether the best lies later on the method's axis as the set grows; empty where that cannot be told."""
    known = sorted((s.images_per_class, s.best.span) for s in studies if s.best and s.best.span)
    if axis is None or len({span for _, span in known}) < 2:
        return ""
    middles = [sum(span) / 2 for _, span in known]
    spans = "; ".join(f"{size} per class: {axis.span} {low:g} to {high:g}" for size, (low, high) in known)
    rising = all(later > earlier for earlier, later in itertools.pairwise(middles))
    answer = "lies later" if rising else "does not always lie later"
    return f"the best {axis.thing} {answer} as the set grows ({spans})"


def page(
    name: str,
    studies: Sequence[Study],
    tests: Mapping[int, str],
    pictures: Sequence[str],
    notes: Sequence[str],
    axis: SweepAxis | None,
) -> str:
    """The sweep as Markdown."""
    lines = [f"# Sweep {name}", ""]
    lines += [f"- {line}" for line in (*(verdict(study) for study in studies), moves(studies, axis), *notes) if line]
    for study in studies:
        header, rows = table(study)
        lines += ["", f"## {size_of(study)}", ""]
        counts = ", ".join(
            f"{study.count(status)} {status}" for status in ("finished", "stopped", "diverged", "failed")
        )
        lines += [f"{len(study.trials)} trials: {counts}; scored after outer steps {list(study.rungs)}.", ""]
        if line := tests.get(study.images_per_class):
            lines += [line, ""]
        lines.append(markdown(header, rows).rstrip())
        lines += [f"\nTrial {t.number} {t.status}: {t.message}" for t in study.trials if t.message]
    lines += [
        "",
        "Accuracies are on the validation split, with the number of fresh networks in brackets. Trials that "
        "were stopped were scored after fewer outer steps and by fewer networks: compare within a column of "
        "outer steps. The last choice is by other networks than those that chose the finalists.",
        "",
        *(f"![{picture}]({picture})" for picture in pictures),
    ]
    return "\n".join(lines) + "\n"


def as_rows(studies: Sequence[Study]) -> list[dict[str, Any]]:
    """All trials of all studies, a dictionary each; its keys are the same in all, None stands for what is not there."""
    keys = list(dict.fromkeys(key for s in studies for t in s.trials for key in t.settings))
    return [_as_row(study, trial, keys) for study in studies for trial in study.trials]


def _as_row(study: Study, trial: TrialRecord, keys: Sequence[str]) -> dict[str, Any]:
    final = (trial.final_mean, trial.final_std, len(trial.final)) if trial.final else (None, None, None)
    facts = (
        study.images_per_class,
        trial.number,
        int(trial.base),
        int(trial.number == study.winner),
        trial.status,
        trial.outer_step,
        trial.accuracy,
        trial.num_networks,
        *final,
    )
    settings = {key: trial.settings.get(key) for key in keys}
    return {**dict(zip(COLUMNS, facts, strict=True)), **settings, "run": trial.run}


def as_csv(studies: Sequence[Study]) -> str:
    """`as_rows` for a spreadsheet."""
    rows, out = as_rows(studies), io.StringIO()
    writer = csv.DictWriter(out, rows[0] if rows else (*COLUMNS, "run"), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def best_file(study: Study, yaml: str, provenance: Mapping[str, str]) -> str:
    """The winner's configuration, with where it comes from above it."""
    best = study.best
    assert best is not None
    lines = [
        verdict(study),
        f"searched: {settings_line(best.settings)}",
        *(f"{key}: {value}" for key, value in provenance.items()),
    ]
    return "".join(f"# {line}\n" for line in lines) + yaml
