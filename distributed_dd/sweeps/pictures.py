"""Pictures of a sweep: accuracy along the method's axis, and parallel coordinates."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from distributed_dd.evaluation.lettering import as_png
from distributed_dd.evaluation.plots import figure_of
from distributed_dd.evaluation.words import SweepAxis
from distributed_dd.methods.names import short
from distributed_dd.search.study import Study, TrialRecord

FAINT, FULL = 0.3, 0.9
LOG_FROM = 30.0


def axis_png(studies: Sequence[Study], axis: SweepAxis | None) -> bytes | None:
    """Trials as lines over their spans of the method's axis, at their accuracy; None where none has a span."""
    studies = [study for study in studies if any(t.span and t.num_networks for t in study.trials)]
    if axis is None or not studies:
        return None
    figure, panels = figure_of(len(studies), "validation accuracy, %")
    for panel, study in zip(panels, studies, strict=True):
        for trial in (t for t in study.trials if t.span and t.num_networks):
            low, high = trial.span or (0.0, 0.0)
            complete = trial.outer_step == study.rungs[-1]
            best, y = trial.number == study.winner, 100 * trial.accuracy
            colour = "C3" if best else "C0" if trial.base else "0.35"
            alpha = FULL if complete else FAINT
            panel.plot([low, high], [y, y], color=colour, alpha=alpha, linewidth=3 if best else 1.5)
            panel.plot(
                [(low + high) / 2],
                [y],
                "*" if best else "o" if complete else ".",
                color=colour,
                alpha=alpha,
                markersize=11 if best else 5,
            )
        for colour, marker, alpha, label in (
            ("C3", "*", FULL, "best"),
            ("C0", "o", FULL, "the base"),
            ("0.35", "o", FULL, "all outer steps"),
            ("0.35", ".", FAINT, "stopped early"),
        ):
            panel.plot([], [], marker=marker, color=colour, alpha=alpha, label=label)
        panel.set_xlabel(axis.label)
        panel.set_title(f"{study.images_per_class} per class")
        panel.legend(fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    return as_png(figure)


def parallel_png(study: Study) -> bytes | None:
    """Parallel coordinates: a line for each trial through the fields it set, to its accuracy."""
    trials = [trial for trial in study.trials if trial.num_networks]
    keys = [k for k in dict.fromkeys(k for t in trials for k in t.settings) if len(_distinct(trials, k)) > 1]
    if not keys:
        return None
    axes = {key: _Axis([t.settings.get(key) for t in trials]) for key in keys}
    axes["accuracy"] = _Axis([100 * trial.accuracy for trial in trials], logarithmic=False)
    figure, (panel,) = figure_of(1, "")
    figure.set_figwidth(1 + 1.4 * max(3, len(axes)))
    for trial in sorted(trials, key=lambda t: (t.number == study.winner, t.outer_step)):
        values: Mapping[str, Any] = {**trial.settings, "accuracy": 100 * trial.accuracy}
        best, complete = trial.number == study.winner, trial.outer_step == study.rungs[-1]
        panel.plot(
            range(len(axes)),
            [axis.place(values.get(key)) for key, axis in axes.items()],
            color="C3" if best else "C0" if trial.base else "0.35",
            alpha=FULL if complete else FAINT,
            linewidth=2.5 if best else 1.2,
            zorder=3 if best else 2,
        )
    for place, axis in enumerate(axes.values()):
        panel.axvline(place, color="0.6", linewidth=0.8)
        for where, text in axis.ends():
            panel.annotate(
                text,
                (place, where),
                fontsize=7,
                ha="center",
                va="center",
                xytext=(0, 9 if where == 1 else -9),
                textcoords="offset points",
            )
    names = ["accuracy, %" if key == "accuracy" else short(key) for key in axes]
    panel.set_xticks(range(len(axes)), names, rotation=15, fontsize=8)
    panel.tick_params(axis="x", pad=14)
    panel.set_yticks([])
    panel.set_ylim(-0.12, 1.12)
    panel.grid(False)
    panel.spines[["left", "bottom"]].set_visible(False)
    panel.set_title(f"{study.images_per_class} per class: red the best, blue the base, faint stopped early", fontsize=8)
    return as_png(figure)


class _Axis:
    """Values as heights in [0, 1]: numbers by size, others in order of appearance."""

    def __init__(self, values: Sequence[Any], logarithmic: bool = True) -> None:
        self.numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        if not self.numbers:
            self.words = list(dict.fromkeys(map(str, values)))
            return
        self.low, self.high = min(values), max(values)
        self.log = logarithmic and self.low > 0 and self.high / self.low >= LOG_FROM

    def place(self, value: Any) -> float:
        """The height of a value."""
        if not self.numbers:
            return self.words.index(str(value)) / max(1, len(self.words) - 1)
        if self.high == self.low:
            return 0.5
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ends(self) -> list[tuple[float, str]]:
        """What stands below and above the axis."""
        if not self.numbers:
            return [(0, self.words[0][:12]), (1, self.words[-1][:12])]
        return [(0, f"{self.low:.4g}"), (1, f"{self.high:.4g}")]


def _distinct(trials: Sequence[TrialRecord], key: str) -> set[str]:
    return {str(trial.settings.get(key)) for trial in trials}
