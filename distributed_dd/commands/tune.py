"""Sweeps."""

from argparse import Namespace

from rich.table import Column, Table

from distributed_dd.allocator import keep_freed_memory
from distributed_dd.backends.local.terminal import terminal, under
from distributed_dd.composition import cluster_from
from distributed_dd.sweeps import tables
from distributed_dd.sweeps.plan import planned
from distributed_dd.sweeps.sweeping import sweeping
from distributed_dd.verbs import last_lines_of_sweep

WIDTH_OF_A_FILE = 140


def tune(options: Namespace) -> int:
    """Search the space of a sweep file; the same command goes on where it was."""
    keep_freed_memory()
    plan = planned(options.file, options.overrides)
    sweep = sweeping(plan, cluster_from(options.on))
    studies = sweep.run()
    console = terminal()
    if not console.is_terminal:
        console.width = WIDTH_OF_A_FILE
    for study in studies:
        header, rows = tables.table(study)
        columns = [Column(name, no_wrap=True) for name in header]
        table = Table(*columns)
        for row in rows:
            table.add_row(*row)
        console.print(under(tables.size_of(study), table))
    for line in last_lines_of_sweep(plan, studies):
        sweep.progress.say(line)
    return 0
