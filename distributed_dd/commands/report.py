"""One run's report, or many side by side."""

from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.table import Column, Table

from distributed_dd.backends.local.terminal import terminal
from distributed_dd.commands.run import print_report, run_of_options
from distributed_dd.durable import write_bytes, write_json, write_text
from distributed_dd.errors import MissingInputError, UserError
from distributed_dd.evaluation import comparison, plots
from distributed_dd.evaluation.series import Series, series_of
from distributed_dd.evaluation.words import Words
from distributed_dd.folder_evaluation import is_set
from distributed_dd.methods import words_by_kind
from distributed_dd.outer.run_folder import Metrics

WIDTH_OF_A_FILE = 160


def report(options: Namespace) -> int:
    """The report of a configuration's run, or of all runs in folders side by side."""
    if len(options.paths) == 1 and not is_set(options.paths[0]):
        options.file = options.paths[0]
        run = run_of_options(options)
        if not run.is_finished:
            raise MissingInputError(str(run.folder.report), "there is no report yet", fix="distributed-dd run")
        print_report(run, run.report())
        return 0
    return _compare(options.paths or [Path("runs")], options.to)


def _compare(paths: list[Path], to: Path | None) -> int:
    console = terminal(soft_wrap=True)

    def say(text: str) -> None:
        console.print(text)

    runs, words = comparison.collect(paths, say), words_by_kind()
    to = to or paths[0] / "comparison"
    drawn = _draw(runs, words, to, say)
    lines = comparison.flat(runs)
    write_json(to / "report.json", {"schema": comparison.SCHEMA, "rows": lines})
    write_text(to / "report.csv", comparison.as_csv(lines))
    write_text(to / "report.md", comparison.page(runs, drawn, words))
    header, rows = comparison.table(runs, words)
    table = Table(Column(header[0], no_wrap=True), *header[1:])
    for row in rows:
        table.add_row(*row)
    console = terminal()
    if not console.is_terminal:
        console.width = WIDTH_OF_A_FILE
    console.print(table)
    if note := comparison.about_columns(runs, words):
        console.print(note)
    if left_out := comparison.unfinished(paths):
        names = ", ".join(path.name for path in left_out)
        text = f"not finished, and left out: {names} (distributed-dd run goes on with each)"
        console.print(text)
    print(f"output:   {to / 'report.md'}")
    return 0


def _draw(
    runs: list[comparison.Finished], words: Mapping[str, Words], to: Path, say: Callable[[str], None]
) -> list[str]:
    """Write the plots; their names. Each run's metrics are read once."""
    losses = {name: title for own in words.values() for name, title in own.losses.items()}
    points = {name: title for own in words.values() for name, title in own.series.items() if name not in losses}
    lines: dict[str, list[tuple[str, Series]]] = {name: [] for name in (*losses, *points)}
    for run in runs:
        metrics = Metrics(run.folder / "metrics.jsonl")
        try:
            metrics.check(run.report.get("metrics_sha256", ""))
        except UserError as error:
            say(f"warning: {run.folder.name} has no curves: {error.where} {error.problem}")
            continue
        for name, one in series_of(metrics.read(), losses, points).items():
            lines[name].append((run.folder.name, one))
    write_bytes(to / "accuracy.png", plots.accuracy_png(runs, words))
    drawn = {name: title for name, title in {**losses, **points}.items() if lines[name]}
    for name, title in drawn.items():
        write_bytes(to / f"{name}.png", plots.series_png(lines[name], title, points=name in points))
    return ["accuracy.png", *(f"{name}.png" for name in drawn)]
