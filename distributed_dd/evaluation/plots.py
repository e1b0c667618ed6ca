"""Pictures of many runs: accuracy against images per class, and what happened outer step by outer step."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from distributed_dd.evaluation.comparison import Finished, published, unconfirmed
from distributed_dd.evaluation.lettering import as_png, legend, lettered
from distributed_dd.evaluation.report import TITLES
from distributed_dd.evaluation.series import SMOOTHED, Series
from distributed_dd.evaluation.words import Words

CONTROLS = {
    "random_real": (":", ".", "0.45"),
    "random_real_soft_labels": ("-.", "x", "0.6"),
    "full_data": ("--", "_", "0.2"),
}
"""Row -> line, marker, grey: told apart at a single size too."""
MOST_NAMED = 12
"""Lines of a plot that a legend can name."""


def accuracy_png(runs: Sequence[Finished], words: Mapping[str, Words]) -> bytes:
    """A panel for each data set: methods as lines, controls dashed and grey, published points hollow."""
    by_data: dict[str, list[Finished]] = defaultdict(list)
    for run in runs:
        by_data[run.report["dataset"]].append(run)
    figure, panels = figure_of(len(by_data), "test accuracy, %")
    for panel, (dataset, own) in zip(panels, by_data.items(), strict=True):
        for number, method in enumerate(sorted({run.report["method"] for run in own})):
            colour = f"C{number}"
            peers = [run for run in own if run.report["method"] == method]
            points = _points(peers, "distilled")
            panel.errorbar(*points, color=colour, marker="o", capsize=3, label=legend(f"{method}, distilled"))
            for row, head in _own_columns(peers, words).items():
                more = _points(peers, row)
                if more[0]:
                    panel.errorbar(
                        *more,
                        color=colour,
                        linestyle="--",
                        marker="s",
                        mfc="none",
                        capsize=3,
                        label=legend(f"{method}, {head}"),
                    )
            known = {n: a for n, a in published(dataset, method).items() if n in points[0]}
            doubt = " (unconfirmed)" if (dataset, method) in unconfirmed() else ""
            if known:
                panel.plot(
                    list(known),
                    list(known.values()),
                    "D",
                    mfc="none",
                    color=colour,
                    label=legend(f"{method}, published{doubt}"),
                )
        for name, (style, marker, grey) in CONTROLS.items():
            points = _points(own, name)
            if points[0]:
                panel.errorbar(*points, color=grey, linestyle=style, marker=marker, capsize=2, label=TITLES[name])
        panel.set_xscale("log")
        sizes = sorted({run.report["images_per_class"] for run in own})
        panel.set_xticks(sizes, [str(size) for size in sizes])
        panel.minorticks_off()
        panel.set_xlabel("images per class")
        panel.set_title(lettered(dataset))
        panel.legend(fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.18))  # covers no point
    return as_png(figure)


def _own_columns(runs: Sequence[Finished], words: Mapping[str, Words]) -> dict[str, str]:
    """Rows that only the method of these runs has -> head of their column."""
    columns = words[runs[0].kind].columns if runs[0].kind in words else {}
    return {name: head for name, head in columns.items() if name != "distilled"}


def series_png(series: Sequence[tuple[str, Series]], title: str, points: bool = False) -> bytes:
    """One quantity of every run, by the run's name, against outer steps.

    Of many runs the lines are thin and the legend names none: the table does.

    Args:
        points: as it is, step by step; smoothed otherwise.
    """
    figure, (panel,) = figure_of(1, title)
    many = len(series) > MOST_NAMED
    look: dict[str, Any] = {"alpha": 0.4 if many else 1.0}
    look |= {"marker": ".", "linestyle": "", "markersize": 2} if points else {"linewidth": 0.7 if many else 1.5}
    for name, one in series:
        panel.plot(one.steps, one.values, label=legend(name), **look)
    panel.set_xlabel("outer step" if points else f"outer step (mean over {SMOOTHED})")
    if many:
        panel.set_title(f"{len(series)} runs", fontsize=8)
    else:
        panel.legend(fontsize=6)
    return as_png(figure)


def _points(runs: Sequence[Finished], name: str) -> tuple[list, list, list]:
    """Images per class, mean and standard deviation in %; the mean over runs of the same setting."""
    by_size: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        if row := run.row(name):
            by_size[run.report["images_per_class"]].append(row)
    sizes = sorted(by_size)
    means = [100 * sum(r["accuracy_mean"] for r in by_size[s]) / len(by_size[s]) for s in sizes]
    stds = [100 * sum(r["accuracy_std"] for r in by_size[s]) / len(by_size[s]) for s in sizes]
    return sizes, means, stds


def figure_of(panels: int, label: str):
    """A figure of panels side by side, and these; the first has the label."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1 + 4.2 * panels, 4.0), dpi=130, layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    axes[0].set_ylabel(label)
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes
