"""What would happen, before anything does."""

from argparse import Namespace

from distributed_dd import config
from distributed_dd.backends.local.terminal import terminal
from distributed_dd.commands.run import run_of_options
from distributed_dd.composition import cluster_from, experiment_from
from distributed_dd.errors import MissingInputError
from distributed_dd.experiment import values_of
from distributed_dd.facets import estimate_lines, scale_of
from distributed_dd.family import plain
from distributed_dd.sweeps.plan import Plan, planned


def show(options: Namespace) -> int:
    """What would happen, before anything does. Without the data, what is known without them."""
    if "space" in config.read(options.file, options.overrides):
        return _show_sweep(options)
    e = experiment_from(options.file, options.overrides)
    asked = cluster_from(options.on).engine.sharing() if options.on else None
    console = terminal(soft_wrap=True)
    console.print(config.to_yaml(values_of(e)))
    try:
        run = run_of_options(options)
    except MissingInputError:
        if facts := e.data.facts:
            for line in estimate_lines(e, scale_of(e, facts, asked)):  # nothing is there yet
                console.print(line)
        raise
    splits = run.material.splits
    console.print(
        f"data      {splits.name}, present: {len(splits.train)} train, {len(splits.validation)} validation, "
        f"{len(splits.test)} test, {splits.num_classes} classes, SHA-256 {splits.sha256[:16]}"
    )
    for note in splits.notes:
        console.print(f"          note: {note}")
    if (present := run.present()) is not None:
        console.print(present)
    state = "finished" if run.folder.report.exists() else "not finished"
    if not run.folder.path.exists():
        state = "not started"
    console.print(f"run       {run.folder.path} ({state})")
    for line in run.estimate(asked):
        console.print(line)
    return 0


def _show_sweep(options: Namespace) -> int:
    """What a sweep would try."""
    plan = planned(options.file, options.overrides)
    console = terminal(soft_wrap=True)
    console.print(config.to_yaml(plain(plan.sweep)))
    for size in plan.bases:
        for line in _study_lines(plan, size):
            console.print(line)
    searched = [(plan.folder / f"ipc{size}" / "study.json").exists() for size in plan.bases]
    begun = "begun" if plan.folder.exists() else "not begun"
    state = "searched" if all(searched) else begun
    console.print(f"sweep     {plan.folder} ({state})")
    return 0


def _study_lines(plan: Plan, size: int) -> list[str]:
    base, values = plan.bases[size], plan.values(size)
    rungs, trials = plan.sweep.rungs(base.num_outer_steps), plan.num_trials(size)
    networks = plan.sweep.networks(len(rungs))
    first = "is the first trial" if plan.space.located(values) else "lies outside of the space: it is no trial"
    scored = ", ".join(f"{step} by {n}" for step, n in zip(rungs, networks, strict=True))
    lines = [
        f"{size} per class: {trials} trials by {type(plan.search).__name__.lower()}; the base {first}",
        f"          scored after outer steps {scored} networks; {trials * rungs[0]} to {trials * rungs[-1]} "
        "outer steps in all",
    ]
    return [*lines, *base.method.sweep_lines([*plan.space.dimensions])]
