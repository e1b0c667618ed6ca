"""Pictures of many runs: accuracy against images per class, and what happened outer step by outer step."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

from distributed_dd.evaluation.comparison import Finished, published, unconfirmed
from distributed_dd.evaluation.lettering import legend, lettered
from distributed_dd.evaluation.pooled import Line, Point, lines_of
from distributed_dd.evaluation.report import TITLES
from distributed_dd.evaluation.series import SMOOTHED, Series
from distributed_dd.evaluation.words import Words

CONTROLS = {
    "random_real": (":", ".", "0.45"),
    "random_real_soft_labels": ("-.", "x", "0.6"),
    "full_data": ("--", "_", "0.2"),
}
"""Row -> line, marker, grey in the legend: told apart at a single size too; drawn in the colour of their setting."""
FAINT = 0.5
BARS = "bars: sample standard deviation over all networks of a point"
MOST_NAMED = 12
"""Lines of a plot that a legend can name."""


def accuracy(runs: Sequence[Finished], words: Mapping[str, Words]) -> Any:
    """A panel for each data set: a colour for each method and setting, published points hollow.

    Runs that differ in their seed alone are one point; bars are over all its networks.
    """
    by_data: dict[str, list[Finished]] = defaultdict(list)
    for run in runs:
        by_data[run.report["dataset"]].append(run)
    figure, panels = figure_of(len(by_data), "test accuracy, %")
    for panel, (dataset, own) in zip(panels, by_data.items(), strict=True):
        lines = lines_of(own)
        many = len(lines) > MOST_NAMED
        colours: dict[str, str] = {}
        for number, line in enumerate(lines):
            colours.setdefault(line.method, f"C{number % 10}")
            _draw_line(panel, line, f"C{number % 10}", words, named=not many)
        for method, colour in colours.items():
            _draw_published(panel, dataset, method, [line for line in lines if line.method == method], colour)
        for name, (style, marker, grey) in CONTROLS.items():
            if any(run.row(name) for run in own):
                panel.plot([], [], color=grey, linestyle=style, marker=marker, label=TITLES[name])
        panel.set_xscale("log")
        sizes = sorted({run.report["images_per_class"] for run in own})
        panel.set_xticks(sizes, [str(size) for size in sizes])
        panel.minorticks_off()
        panel.set_xlabel("images per class")
        panel.set_title(f"{lettered(dataset)}: {len(lines)} settings" if many else lettered(dataset))
        if panel.get_legend_handles_labels()[0]:
            below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.18)}  # covers no point
            panel.legend(fontsize=7, ncols=2, title=BARS, title_fontsize=7, **below)
    return figure


def _draw_line(panel: Any, line: Line, colour: str, words: Mapping[str, Words], named: bool) -> None:
    """What was distilled, rows of the method's own, and the controls, which depend on the same settings."""
    look: dict[str, dict[str, Any]] = {"distilled": {"marker": "o"}}
    columns = words[line.kind].columns if line.kind in words else {}
    look |= {name: {"linestyle": "--", "marker": "s", "mfc": "none"} for name in columns if name != "distilled"}
    for name, how in look.items():
        if points := line.points(name):
            label = legend(label_of(line, columns.get(name, "distilled"), points)) if named else None
            panel.errorbar(*_in_percent(points), color=colour, capsize=3, label=label, **how)
    for name, (style, marker, _) in CONTROLS.items():
        if points := line.points(name):
            where = _in_percent(points)
            panel.errorbar(*where, color=colour, linestyle=style, marker=marker, capsize=2, alpha=FAINT)


def label_of(line: Line, what: str, points: Sequence[Point]) -> str:
    """A line in a legend: the method, the settings that tell it from others, and over how many seeds."""
    seeds = sorted({point.num_runs for point in points})
    over = [f"{' to '.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} seeds"] if seeds[-1] > 1 else []
    return ", ".join([" ".join([line.method, *line.differences]), what, *over])


def _draw_published(panel: Any, dataset: str, method: str, lines: Sequence[Line], colour: str) -> None:
    sizes = {point.images_per_class for line in lines for point in line.points("distilled")}
    known = {n: accuracy for n, accuracy in published(dataset, method).items() if n in sizes}
    doubt = " (unconfirmed)" if (dataset, method) in unconfirmed() else ""
    if known:
        label = legend(f"{method}, published{doubt}")
        panel.plot(list(known), list(known.values()), "D", mfc="none", color=colour, label=label)


def _in_percent(points: Sequence[Point]) -> tuple[list[int], list[float], list[float]]:
    """Images per class, means and bars; no bar where a spread is unknown."""
    bars = [nan if point.std is None else 100 * point.std for point in points]
    return [point.images_per_class for point in points], [100 * point.mean for point in points], bars


def series(lines: Sequence[tuple[str, Series]], title: str, points: bool = False) -> Any:
    """One quantity of every run, by the run's name, against outer steps.

    Of many runs the lines are thin and the legend names none: the table does.

    Args:
        points: as it is, step by step; smoothed otherwise.
    """
    figure, (panel,) = figure_of(1, title)
    many = len(lines) > MOST_NAMED
    look: dict[str, Any] = {"alpha": 0.4 if many else 1.0}
    look |= {"marker": ".", "linestyle": "", "markersize": 2} if points else {"linewidth": 0.7 if many else 1.5}
    for name, one in lines:
        panel.plot(one.steps, one.values, label=legend(name), **look)
    panel.set_xlabel("outer step" if points else f"outer step (mean over {SMOOTHED})")
    if many:
        panel.set_title(f"{len(lines)} runs", fontsize=8)
    else:
        panel.legend(fontsize=6)
    return figure


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
