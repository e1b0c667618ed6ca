"""Experts, distil, evaluate: alone or in order."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from rich.table import Table

from distributed_dd import verbs
from distributed_dd.allocator import keep_freed_memory
from distributed_dd.backends.local.console import ConsoleProgress
from distributed_dd.backends.local.terminal import terminal, under
from distributed_dd.composition import cluster_from, experiment_from
from distributed_dd.evaluation.report import title, titled
from distributed_dd.evaluation.tables import percent
from distributed_dd.experiment_run import Run
from distributed_dd.folder_evaluation import is_set
from distributed_dd.outer.prelude import Listing
from distributed_dd.presets import located

ROWS_AT_EACH_END = 10


def run(options: Namespace) -> int:
    """Everything, in order; a finished run says so."""
    run = run_of_options(options)
    print_report(run, verbs.run_all(run))
    return 0


def experts(options: Namespace) -> int:
    """What runs of the method share, alone: experts, a GAN; some methods share nothing."""
    run = run_of_options(options)
    if run.prelude is None:
        print(f"{run.method.name} needs nothing made beforehand")
        return 0
    run.prepare(for_use=False)
    if (listing := run.prelude.listing()) is not None:
        _print_listing(listing)
    print(run.prelude.where())
    return 0


def _print_listing(listing: Listing) -> None:
    """What a prelude consists of; of a long list its two ends."""
    table, lines = Table(*listing.columns), listing.lines
    num_left_out = len(lines) - 2 * ROWS_AT_EACH_END
    if num_left_out > 0:
        more = [f".. {num_left_out} more in manifest.json"]
        lines = [*lines[:ROWS_AT_EACH_END], more, *lines[-ROWS_AT_EACH_END:]]
    for line in lines:
        table.add_row(*line)
    terminal().print(table)
    terminal(soft_wrap=True).print(listing.caption)


def distill(options: Namespace) -> int:
    """What runs share where it is missing, then the set or generator."""
    run = run_of_options(options)
    verbs.distill_only(run)
    print(f"what was distilled is in {run.product.folders[0]}")
    return 0


def evaluate(options: Namespace) -> int:
    """The scores of a set that is there: of a configuration's run, or of a folder on other networks."""
    if is_set(options.file):
        return _evaluate_set(options)
    run = run_of_options(options)
    print_report(run, verbs.evaluate_run(run))
    return 0


def _evaluate_set(options: Namespace) -> int:
    """A result of this program, or a set of others with the configuration that is named after it."""
    keep_freed_memory()
    progress, cluster = ConsoleProgress(), cluster_from(options.on)
    first, *rest = options.overrides or [""]
    file = located(Path(first)) if first and "=" not in first else None
    overrides = options.overrides if file is None else rest
    evaluated = verbs.evaluate_set(options.file, file, overrides, cluster, progress)
    table = Table(*evaluated.header)
    for line in evaluated.lines:
        table.add_row(*line)
    terminal().print(under(evaluated.title, table))
    progress.say(f"output:   {evaluated.page}")
    return 0


def run_of_options(options: Namespace) -> Run:
    """The run that the typed options name; its folder is not held yet."""
    keep_freed_memory()
    return Run(experiment=experiment_from(options.file, options.overrides), cluster=cluster_from(options.on))


def print_report(run: Run, result: dict[str, Any]) -> None:
    """The report of a run as a table, and where its files are."""
    console = terminal()
    columns = ("trained on", "labels", "test accuracy, %", "networks")
    table = Table(*columns)
    for row in result["rows"]:
        table.add_row(titled(row["name"], run.method.words.rows), row["labels"], percent(row), str(row["num_networks"]))
    console.print(under(title(result), table))
    for line in verbs.last_lines(run, result):
        run.progress.say(line)
