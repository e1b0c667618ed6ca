"""One function per verb of the command line; each returns the exit code."""

import dataclasses
import os
import shlex
import typing
from argparse import Namespace
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from distributed_dd import config
from distributed_dd.allocator import keep_freed_memory
from distributed_dd.backends.console import ConsoleProgress
from distributed_dd.composition import CLUSTERS, Run, cluster_from, experiment_from
from distributed_dd.data import DATA_SETS, PREPROCESSINGS
from distributed_dd.distillation.augment import AUGMENTATIONS
from distributed_dd.distillation.labels import LABELS
from distributed_dd.distillation.methods import METHODS
from distributed_dd.distillation.networks import NETWORKS
from distributed_dd.distillation.segments import SEGMENTS
from distributed_dd.distillation.starts import STARTS
from distributed_dd.distillation.unroll import UNROLLS
from distributed_dd.durable import read_json, write_bytes, write_json
from distributed_dd.errors import MissingInputError
from distributed_dd.exchange import export_to, import_from
from distributed_dd.family import describe_type, plain
from distributed_dd.set_evaluation import evaluate_set, is_set
from distributed_dd.stages import artefact, comparison, cross_architecture, estimate, plots
from distributed_dd.stages.report import TITLES, title
from distributed_dd.training.optimizers import OPTIMIZERS

FAMILIES = (
    DATA_SETS, PREPROCESSINGS, NETWORKS, METHODS, SEGMENTS, STARTS, LABELS, AUGMENTATIONS, UNROLLS,
    OPTIMIZERS, CLUSTERS,
)  # fmt: skip


def run(options: Namespace) -> int:
    """Everything, in order; a finished run says so."""
    whole = _open(options)
    if whole.experiment.resume != "never" and whole.folder.report.exists():
        artefact.load_distilled(whole.folder.distilled)  # verifies what it reports about
        whole.progress.say("this run is already finished; nothing was done again")
        _print_report(whole, read_json(whole.folder.report))
        return 0
    with whole.opened():
        whole.train_experts()
        whole.distill()
        result = whole.evaluate()
    _print_report(whole, result)
    return 0


def experts(options: Namespace) -> int:
    """The experts alone."""
    whole = _open(options)
    whole.train_experts()
    print(f"experts are in {whole.store.folder}")
    return 0


def distill(options: Namespace) -> int:
    """Experts where missing, then the set."""
    whole = _open(options)
    with whole.opened():
        whole.train_experts()
        whole.distill()
    print(f"the distilled set is in {whole.folder.distilled}")
    return 0


def evaluate(options: Namespace) -> int:
    """The scores of a set that is there: of a configuration's run, or of a folder on other networks."""
    if is_set(options.file):
        return _evaluate_folder(options)
    whole = _open(options)
    if not (whole.folder.distilled / artefact.MANIFEST).exists():
        raise MissingInputError(
            str(whole.folder.distilled), "holds no distilled set", fix="distributed-dd run"
        )
    with whole.opened():
        whole.train_experts()
        result = whole.evaluate()
    _print_report(whole, result)
    return 0


def _evaluate_folder(options: Namespace) -> int:
    keep_freed_memory()
    progress = ConsoleProgress()
    folder, result = evaluate_set(options.file, options.overrides, cluster_from(options.on), progress)
    header, lines = cross_architecture.table(result)
    table = Table(*header)
    for line in lines:
        table.add_row(*line)
    Console(highlight=False).print(table)
    progress.say(f"output:   {folder / cross_architecture.PAGE}")
    return 0


def report(options: Namespace) -> int:
    """The report of a configuration's run, or of all runs in folders side by side."""
    if len(options.paths) == 1 and not is_set(options.paths[0]):
        options.file = options.paths[0]
        whole = _open(options)
        if not whole.folder.report.exists():
            raise MissingInputError(
                str(whole.folder.report), "there is no report yet", fix="distributed-dd run"
            )
        _print_report(whole, read_json(whole.folder.report))
        return 0
    return _compare(options.paths or [Path("runs")], options.to)


def _compare(paths: list[Path], to: Path | None) -> int:
    runs = comparison.collect(paths)
    to = to or paths[0] / "comparison"
    pictures = {"accuracy.png": plots.accuracy_png(runs)}
    for name in plots.SERIES:
        if (png := plots.series_png(runs, name)) is not None:
            pictures[f"{name}.png"] = png
    for name, png in pictures.items():
        write_bytes(to / name, png)
    lines = comparison.flat(runs)
    write_json(to / "report.json", {"schema": comparison.SCHEMA, "rows": lines})
    write_bytes(to / "report.csv", comparison.as_csv(lines).encode())
    write_bytes(to / "report.md", comparison.page(runs, list(pictures)).encode())
    header, rows = comparison.table(runs)
    table = Table(Column(header[0], no_wrap=True), *header[1:])
    for row in rows:
        table.add_row(*row)
    Console(highlight=False).print(table)
    print(f"output:   {to / 'report.md'}")
    return 0


def show(options: Namespace) -> int:
    """What would happen, before anything does. Without the data, what is known without them."""
    e = experiment_from(options.file, options.overrides)
    console = Console(highlight=False, soft_wrap=True)
    console.print(config.to_yaml(plain(e)), markup=False)
    try:
        whole = _open(options)
    except MissingInputError:
        if facts := e.data.facts:
            for line in estimate.lines(e, facts, e.experts.num_experts):
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
    for line in estimate.lines(e, splits.facts, len(missing)):
        console.print(line)
    return 0


def import_(options: Namespace) -> int:
    """Other people's experts or distilled set, in our format."""
    folder = import_from(options.source, options.file, options.overrides, options.to, ConsoleProgress())
    if (folder / artefact.MANIFEST).exists() and (folder / artefact.SET).exists():
        print(f"the set is in {folder}; distributed-dd evaluate {folder} scores it")
    else:
        print(f"experts are in {folder}; experts.store={folder} uses them")
    return 0


def export(options: Namespace) -> int:
    """A distilled set or experts, for other programs."""
    to = options.to or Path("exported")
    export_to(options.source, options.overrides, options.form, to, ConsoleProgress())
    print(f"output:   {to}")
    return 0


def kinds(options: Namespace) -> int:
    """Every family, its members, their settings."""
    console = Console(highlight=False, soft_wrap=True)
    for family in FAMILIES:
        console.print(f"\n[bold]{family.name}[/bold]")
        for kind, cls in family.members.items():
            console.print(f"  {kind}: {(cls.__doc__ or '').strip().splitlines()[0]}", markup=False)
            hints = typing.get_type_hints(cls)
            for field in dataclasses.fields(cls):
                nested = field.metadata.get("family")
                what = f"one of the kinds of {nested.name}" if nested else describe_type(hints[field.name])
                meaning = field.metadata.get("meaning", "")
                console.print(f"      {field.name} ({what}): {meaning}", markup=False)
    return 0


def bench(options: Namespace) -> int:
    """Measurements."""
    from distributed_dd.bench import unroll

    return unroll.main(as_json=options.json, quick=options.quick)


def _open(options: Namespace) -> Run:
    keep_freed_memory()
    return Run(experiment_from(options.file, options.overrides), cluster_from(options.on))


def _print_report(whole: Run, result: dict) -> None:
    console = Console(highlight=False)
    columns = ("trained on", "labels", "test accuracy, %", "networks")
    table = Table(*columns, title=title(result), title_justify="left")
    for row in result["rows"]:
        accuracy = f"{100 * row['accuracy_mean']:.1f} ± {100 * row['accuracy_std']:.1f}"
        name = TITLES.get(row["name"], row["name"])
        table.add_row(name, row["labels"], accuracy, str(row["num_networks"]))
    console.print(table)
    say = whole.progress.say
    say(
        f"outer step {result['best_step']} of {result['num_outer_steps']} was chosen on validation; "
        f"the {result['num_test']} test images were touched once"
    )
    say(f"preview:  {whole.folder.distilled / artefact.PREVIEW}")
    if whole.experiment.tracker == "mlflow":
        say(f"compare:  {_ui_command(Path(whole.experiment.output))}")
    say(f"output:   {whole.folder.path}")


def _ui_command(output: Path) -> str:
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri and not uri.startswith("sqlite"):  # an address may hold a password: not printed
        return "open the tracking server in MLFLOW_TRACKING_URI"
    store = uri or f"sqlite:///{output / 'mlflow.db'}"
    return f"mlflow ui --backend-store-uri {shlex.quote(store)}"
