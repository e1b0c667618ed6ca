"""What the verbs do, without the words around it: for the command line and for Python alike."""

import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed_dd.backends.local.cluster import InProcess
from distributed_dd.backends.local.console import ConsoleProgress
from distributed_dd.backends.ray.cluster import RayCluster
from distributed_dd.composition import Source
from distributed_dd.durable import write_bytes, write_json, write_text
from distributed_dd.errors import MissingInputError, UserError
from distributed_dd.evaluation import artefact, comparison, plots
from distributed_dd.evaluation.comparison import Finished
from distributed_dd.evaluation.lettering import as_pdf, as_png
from distributed_dd.evaluation.report import chosen_by, remarks
from distributed_dd.evaluation.series import Series, series_of
from distributed_dd.evaluation.tables import latex
from distributed_dd.evaluation.words import Words
from distributed_dd.experiment_run import Run
from distributed_dd.folder_evaluation import Evaluated, evaluate_folder, evaluate_published, is_ours
from distributed_dd.methods import words_by_kind
from distributed_dd.outer.run_folder import Metrics
from distributed_dd.places import shown_from_here
from distributed_dd.search.study import Study
from distributed_dd.sweeps import tables
from distributed_dd.sweeps.plan import Plan
from distributed_dd.sweeps.results import best_path


def run_all(run: Run) -> dict[str, Any]:
    """Everything, in order, unless it is done already; the report."""
    if run.experiment.resume != "never":
        run.bring()
    if run.experiment.resume != "never" and run.is_finished:
        report = run.report()
        run.progress.say("this run is already finished; nothing was done again")
        run.settle()
        return report
    with run.opened():
        run.prepare()
        run.distill()
        return run.evaluate()


def distill_only(run: Run) -> None:
    """What runs share where it is missing, then the set or generator; no test."""
    with run.opened():
        run.prepare()
        run.distill()


def evaluate_run(run: Run) -> dict[str, Any]:
    """The report of a run whose set or generator is there.

    Raises:
        MissingInputError: it is not.
    """
    if not run.is_distilled:
        raise MissingInputError(str(run.folder.distilled), "holds no distilled set", fix="distributed-dd run")
    with run.opened():
        run.prepare()
        return run.evaluate()


def evaluate_set(
    source: Path, file: Source | None, overrides: list[str], cluster: RayCluster | InProcess, progress: ConsoleProgress
) -> Evaluated:
    """A result of this program on other networks, or a set of others by the configuration in ``file``."""
    if file is None and is_ours(source):
        return evaluate_folder(source, overrides, cluster, progress)
    return evaluate_published(source, file, overrides, cluster, progress)


def report_of(run: Run) -> dict[str, Any]:
    """The report of a finished run.

    Raises:
        MissingInputError: it is not finished.
    """
    if not run.is_finished:
        raise MissingInputError(str(run.folder.report), "there is no report yet", fix="distributed-dd run")
    return run.report()


def last_lines(run: Run, report: dict[str, Any]) -> Iterator[str]:
    """What stands below the table of a report: what was chosen, by how much it is better, where its files are."""
    yield (
        f"outer step {report['best_step']} of {report['num_outer_steps']} was chosen on validation"
        f"{chosen_by(report)}; the {report['num_test']} test images were touched once"
    )
    yield from remarks(report)[2:]
    yield f"preview:  {run.product.folders[0] / artefact.PREVIEW}"
    if run.experiment.tracker == "mlflow":
        yield f"compare:  {ui_command(Path(run.experiment.output))}"
    yield f"output:   {run.folder.path}"


def last_lines_of_sweep(plan: Plan, studies: Sequence[Study]) -> Iterator[str]:
    """What stands below the tables of a sweep: its winners, what to type next, where its files are."""
    elsewhere = "" if plan.sweep.output == "runs" else f" output={shlex.quote(plan.sweep.output)}"
    yield from map(tables.verdict, studies)
    if line := tables.moves(studies, plan.axis):
        yield line
    for study in studies:
        best = shown_from_here(best_path(plan, study.images_per_class))
        yield f"best:     distributed-dd run {best}{elsewhere}"
    if next(iter(plan.bases.values())).tracker == "mlflow":
        yield f"compare:  {ui_command(Path(plan.sweep.output))}"
    yield f"output:   {shown_from_here(plan.folder / 'report.md')}"


def ui_command(output: Path) -> str:
    """What to type to compare runs."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri and not uri.startswith("sqlite"):  # an address may hold a password: not printed
        return "open the tracking server in MLFLOW_TRACKING_URI"
    if uri:
        return f"mlflow ui --backend-store-uri {shlex.quote(uri)}"
    return f"distributed-dd ui {shlex.quote(str(output))}"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs side by side: `report` of folders.

    Attributes:
        folder: holds ``report.md``, ``report.csv``, ``report.json``, ``report.tex`` and the plots, as PNG and PDF.
        rows: a plain dictionary for each row of each run's report, accuracies in [0, 1].
        figures: the plots.
        runs: the finished runs, in the order of the table.
    """

    folder: Path
    rows: list[dict[str, Any]] = field(repr=False)
    figures: list[Path] = field(repr=False)
    runs: list[Finished] = field(repr=False)

    def __repr__(self) -> str:
        return f"Comparison({len(self.runs)} run{'s' * (len(self.runs) != 1)}, {shown_from_here(self.folder)})"


def compare(paths: Sequence[Path], to: Path | None, say: Callable[[str], None]) -> Comparison:
    """Write the table and the plots of all finished runs in or below ``paths``.

    By default into ``comparison/`` of the first folder of runs; beside the first run, where that itself is named.
    """
    runs, words = comparison.collect(paths, say), words_by_kind()
    is_run = (paths[0] / "report.json").exists()
    to = to or (paths[0].parent if is_run else paths[0]) / "comparison"
    drawn = _draw(runs, words, to, say)
    rows = comparison.flat(runs)
    write_json(to / "report.json", {"schema": comparison.SCHEMA, "rows": rows})
    write_text(to / "report.csv", comparison.as_csv(rows))
    write_text(to / "report.md", comparison.page(runs, drawn, words))
    write_text(to / "report.tex", latex(*comparison.table(runs, words)))
    return Comparison(folder=to, rows=rows, figures=[to / name for name in drawn], runs=runs)


def _draw(runs: Sequence[Finished], words: Mapping[str, Words], to: Path, say: Callable[[str], None]) -> list[str]:
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
    figures = {"accuracy": plots.accuracy(runs, words)}
    drawn = {name: title for name, title in {**losses, **points}.items() if lines[name]}
    figures |= {name: plots.series(lines[name], title, points=name in points) for name, title in drawn.items()}
    for name, figure in figures.items():
        write_bytes(to / f"{name}.png", as_png(figure))
        write_bytes(to / f"{name}.pdf", as_pdf(figure))
    return [f"{name}.png" for name in figures]
