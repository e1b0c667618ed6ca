"""The results of a sweep: the best configurations, a report and pictures for people, scores for the tracker."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from distributed_dd import config
from distributed_dd.backends.local.tracker import NoTracker
from distributed_dd.backends.mlflow.tracker import MlflowTracker
from distributed_dd.durable import write_bytes, write_json, write_text
from distributed_dd.experiment import experiment_of, identity_of
from distributed_dd.nested import laid_over
from distributed_dd.outer.environment import commit, versions
from distributed_dd.search.study import Study
from distributed_dd.search.sweep import Population
from distributed_dd.sweeps import pictures as drawing
from distributed_dd.sweeps import tables
from distributed_dd.sweeps.plan import Plan


def best_path(plan: Plan, size: int) -> Path:
    """Where the best configuration for ``size`` images per class is written."""
    return plan.folder / f"best_ipc{size}.yaml"


def write_best(plan: Plan, study: Study) -> None:
    """The best configuration of a study, ready to be run."""
    if study.best is None:
        return
    settings = laid_over(plan.values(study.images_per_class), study.best.settings)
    provenance = {
        "sweep": f"{plan.folder.name} (sweep.yaml beside this file has its space and budget)",
        "trial": f"{study.best.number} of {len(study.trials)}, run folder trials/{study.best.run}",
        "made by": f"distributed_dd {versions()['distributed_dd']}, commit {commit()}",
    }
    if isinstance(plan.search, Population):
        provenance["note"] = (
            "the rates changed on the way, these are the last ones; checkpoint/lineage.json of the run folder has all"
        )
    experiment = experiment_of(settings)
    values = identity_of(experiment)
    # They decide nothing about the result, but the report has them: the same line finds the run finished.
    values["evaluate"]["controls"] = list(experiment.evaluate.controls)
    yaml = config.to_yaml(values)
    text = tables.best_file(study, yaml, provenance)
    write_text(best_path(plan, study.images_per_class), text)


def write_report(
    plan: Plan, studies: Sequence[Study], tests: Mapping[int, str], tracker: MlflowTracker | NoTracker
) -> None:
    """Page, tables and pictures of the studies so far; ``tests`` say what winners reached, by size."""
    folder = plan.folder
    axis = plan.axis
    pictures = {"windows.png": drawing.axis_png(studies, axis)}
    pictures |= {f"parallel_ipc{s.images_per_class}.png": drawing.parallel_png(s) for s in studies}
    drawn = {name: png for name, png in pictures.items() if png is not None}
    for name, png in drawn.items():
        write_bytes(folder / name, png)
    left = len(plan.bases) - len(studies)
    notes = [f"{left} studies are still to come"] if left else []
    page = tables.page(plan.name, studies, tests, list(drawn), notes, axis)
    write_text(folder / "report.md", page)
    write_text(folder / "trials.csv", tables.as_csv(studies))
    values = {
        "schema": tables.SCHEMA,
        "sweep": plan.name,
        "tests": dict(tests),
        "studies": [study.as_json() for study in studies],
    }
    write_json(folder / "report.json", values)
    _tell(plan, studies, tests, tracker)
    for name in (*drawn, "report.md", "trials.csv", "report.json", "sweep.yaml"):
        tracker.artefact(folder / name)


def _tell(plan: Plan, studies: Sequence[Study], tests: Mapping[int, str], tracker: MlflowTracker | NoTracker) -> None:
    """Send the verdicts, scores and best configurations of the studies to the sweep's own run in the tracker."""
    lines = [*map(tables.verdict, studies), *tests.values(), tables.moves(studies, plan.axis)]
    tracker.tag({"mlflow.note.content": "\n\n".join(filter(None, lines))})
    for study in studies:
        if study.best:
            size = study.images_per_class
            tracker.summary({f"ipc{size} validation_accuracy": study.best.final_mean})
            tracker.artefact(best_path(plan, size))
