"""The picture of a diagnosis: accuracy against loss, a point a set."""

import math
from collections.abc import Mapping, Sequence

from distributed_dd.evaluation.diagnosis import Pair
from distributed_dd.evaluation.lettering import as_png, lettered
from distributed_dd.evaluation.plots import figure_of

MOST_NAMED = 12


def diagnosis_png(panels: Mapping[str, Sequence[Pair]], loss: str) -> bytes:
    """A panel for each title; random real images grey, coresets filled, all others hollow, and named."""
    figure, axes = figure_of(len(panels), "validation accuracy, %")
    for axis, (title, pairs) in zip(axes, panels.items(), strict=True):
        shown = [pair for pair in pairs if math.isfinite(pair.loss)]
        styles = {"random": ("o", "0.6", "0.6"), "coreset": ("s", "C0", "C0"), "other": ("D", "C1", "none")}
        for kind, (marker, edge, face) in styles.items():
            own = [pair for pair in shown if _kind(pair) == kind]
            x, y = [pair.loss for pair in own], [100 * pair.accuracy for pair in own]
            axis.plot(x, y, marker, color=edge, mfc=face, linestyle="none")
        named = [pair for pair in shown if not pair.random]
        for pair in named if len(named) <= MOST_NAMED else ():
            where = (pair.loss, 100 * pair.accuracy)
            axis.annotate(lettered(pair.name), where, xytext=(4, 4), textcoords="offset points", fontsize=7)
        axis.set_xlabel(lettered(loss))
        axis.set_title(lettered(title, 60), fontsize=9)
    return as_png(figure)


def _kind(pair: Pair) -> str:
    return "random" if pair.random else "coreset" if pair.coreset else "other"
