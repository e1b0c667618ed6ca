"""One run's report, or many side by side."""

from argparse import Namespace
from pathlib import Path

from rich.table import Column, Table

from distributed_dd import verbs
from distributed_dd.backends.local.terminal import terminal
from distributed_dd.commands.run import print_report, run_of_options
from distributed_dd.evaluation import comparison
from distributed_dd.folder_evaluation import is_set
from distributed_dd.methods import words_by_kind

WIDTH_OF_A_FILE = 160


def report(options: Namespace) -> int:
    """The report of a configuration's run, or of all runs in folders side by side."""
    if len(options.paths) == 1 and not is_set(options.paths[0]):
        options.file = options.paths[0]
        run = run_of_options(options)
        print_report(run, verbs.report_of(run))
        return 0
    return _compare(options.paths or [Path("runs")], options.to)


def _compare(paths: list[Path], to: Path | None) -> int:
    compared, words = verbs.compare(paths, to, terminal(soft_wrap=True).print), words_by_kind()
    header, rows = comparison.table(compared.runs, words)
    table = Table(Column(header[0], no_wrap=True), *header[1:])
    for row in rows:
        table.add_row(*row)
    console = terminal()
    if not console.is_terminal:
        console.width = WIDTH_OF_A_FILE
    console.print(table)
    if note := comparison.about_columns(compared.runs, words):
        console.print(note)
    if left_out := comparison.unfinished(paths):
        names = ", ".join(path.name for path in left_out)
        text = f"not finished, and left out: {names} (distributed-dd run goes on with each)"
        console.print(text)
    print(f"output:   {compared.folder / 'report.md'}")
    return 0
