"""What would happen, before anything does."""

from argparse import Namespace

from rich.console import Console

from distributed_dd import config
from distributed_dd.commands.run import opened
from distributed_dd.composition import cluster_from, experiment_from
from distributed_dd.errors import MissingInputError
from distributed_dd.family import plain
from distributed_dd.stages import estimate


def show(options: Namespace) -> int:
    """What would happen, before anything does. Without the data, what is known without them."""
    e = experiment_from(options.file, options.overrides)
    asked = cluster_from(options.on).engine.sharing() if options.on else None
    console = Console(highlight=False, soft_wrap=True)
    console.print(config.to_yaml(plain(e)), markup=False)
    try:
        whole = opened(options)
    except MissingInputError:
        if facts := e.data.facts:
            for line in estimate.lines(e, facts, e.experts.num_experts, asked):
                console.print(line)
        raise
    missing = whole.store.missing(e.experts.num_experts)
    splits = whole.material.splits
    console.print(
        f"data      {splits.name}, present: {len(splits.train)} train, {len(splits.validation)} validation, "
        f"{len(splits.test)} test, {splits.num_classes} classes, SHA-256 {splits.sha256[:16]}"
    )
    for note in splits.notes:
        console.print(f"          note: {note}")
    here = e.experts.num_experts - len(missing)
    console.print(f"experts   {here} of {e.experts.num_experts} present in {whole.store.folder}")
    state = "finished" if whole.folder.report.exists() else "not finished"
    if not whole.folder.path.exists():
        state = "not started"
    console.print(f"run       {whole.folder.path} ({state})")
    for line in estimate.lines(e, splits.facts, len(missing), asked):
        console.print(line)
    return 0
