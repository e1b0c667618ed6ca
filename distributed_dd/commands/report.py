"""One run's report, or many side by side."""

from argparse import Namespace
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from distributed_dd.commands.run import print_report, run_of_options
from distributed_dd.durable import write_bytes, write_json
from distributed_dd.errors import MissingInputError
from distributed_dd.evaluation import comparison, plots
from distributed_dd.folder_evaluation import is_set
from distributed_dd.methods import words_by_kind

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
    runs, words = comparison.collect(paths), words_by_kind()
    to = to or paths[0] / "comparison"
    pictures: dict[str, bytes | None] = {"accuracy.png": plots.accuracy_png(runs, words)}
    for own in words.values():
        for name, title in own.losses.items():
            pictures[f"{name}.png"] = plots.series_png(runs, name, title)
        for name, title in own.series.items():
            pictures[f"{name}.png"] = plots.series_png(runs, name, title, points=True)
    drawn = {name: png for name, png in pictures.items() if png is not None}
    for name, png in drawn.items():
        write_bytes(to / name, png)
    lines = comparison.flat(runs)
    write_json(to / "report.json", {"schema": comparison.SCHEMA, "rows": lines})
    write_bytes(to / "report.csv", comparison.as_csv(lines).encode())
    write_bytes(to / "report.md", comparison.page(runs, list(drawn), words).encode())
    header, rows = comparison.table(runs, words)
    table = Table(Column(header[0], no_wrap=True), *header[1:])
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_OF_A_FILE
    console.print(table)
    if note := comparison.about_columns(runs, words):
        console.print(note)
    if left_out := comparison.unfinished(paths):
        names = ", ".join(path.name for path in left_out)
        console.print(f"not finished, and left out: {names} (distributed-dd run goes on with each)")
    print(f"output:   {to / 'report.md'}")
    return 0
