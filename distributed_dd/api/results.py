"""What the functions return: results on disk, opened."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from distributed_dd.evaluation import artefact
from distributed_dd.evaluation.tables import percent
from distributed_dd.experiment import Experiment
from distributed_dd.experiment_run import Run
from distributed_dd.outer.run_folder import Metrics
from distributed_dd.places import shown_from_here
from distributed_dd.search.study import Study
from distributed_dd.sweeps import tables


class Accuracy(NamedTuple):
    """Mean and sample standard deviation over fresh networks, in [0, 1]."""

    mean: float
    std: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """A run that has distilled something: what `run`, `distill`, `evaluate` and `report` give.

    Attributes:
        folder: the run folder. experiment: the configuration.
        manifest: what a stranger needs to use the set or generator as it was meant.
        report: ``report.json``: the scores on the test split and what the stages took; empty before `evaluate`.
    """

    folder: Path
    experiment: Experiment
    manifest: dict[str, Any]
    report: dict[str, Any]

    @staticmethod
    def of(run: Run, report: dict[str, Any]) -> "Result":
        """The result of a run; ``report``: empty where there is none."""
        manifest = artefact.manifest_of(run.folder.distilled)
        folder = run.folder.path.absolute()
        return Result(folder=folder, experiment=run.experiment, manifest=manifest, report=report)

    @cached_property
    def set(self) -> Any:
        """The distilled set, as `load_distilled` gives it; of a generative method the generator, as `load_generator`.

        Raises:
            MissingInputError: it is gone. IntegrityError: a file is not what was written.
        """
        return self.experiment.method.loaded(self.folder)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The table of the report, a plain dictionary a row, accuracies in [0, 1]; none before `evaluate`."""
        return [dict(row) for row in self.report.get("rows", ())]

    @property
    def accuracy(self) -> Accuracy | None:
        """Test accuracy of what was distilled, the report's first line; None before `evaluate`."""
        row = self._headline
        return None if row is None else Accuracy(row["accuracy_mean"], row["accuracy_std"])

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """What was measured at every outer step, a plain dictionary each."""
        return list(Metrics(self.folder / "metrics.jsonl").read())

    @property
    def figures(self) -> list[Path]:
        """The pictures in the run folder, and beside the manifests of what was distilled."""
        results = (manifest.parent for manifest in self.folder.glob(f"*/{artefact.MANIFEST}"))
        return sorted(picture for folder in (self.folder, *results) for picture in folder.glob("*.png"))

    @property
    def _headline(self) -> dict[str, Any] | None:
        name = self.experiment.method.words.headline
        return next((row for row in self.rows if row["name"] == name), None)

    def __repr__(self) -> str:
        m, row, validation = self.manifest, self._headline, self.manifest["validation_accuracy"]
        if row is not None:
            score = f"{percent(row)} %" + (", nothing was learned" if self.report.get("unchanged") else "")
        else:
            score = "not tested" + ("" if validation is None else f", {100 * validation:.1f} % on validation")
        what = f"{m['method']} on {m['dataset']['name']}, {m['images_per_class']} per class"
        return f"Result({what}: {score}, {shown_from_here(self.folder)})"


@dataclass(frozen=True, kw_only=True, eq=False)
class TuneResult:
    """A sweep that has been searched: what `tune` gives.

    Attributes:
        folder: of the sweep: its report, tables and pictures, and the trials as run folders.
        studies: the trials and the winner, a study for each number of images per class.
        best: images per class -> the best configuration, a file that `run` takes.
    """

    folder: Path
    studies: list[Study] = field(repr=False)
    best: dict[int, Path] = field(repr=False)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A plain dictionary for each trial: what it set by ``key.path``, how it ended, what it reached."""
        return tables.as_rows(self.studies)

    @property
    def figures(self) -> list[Path]:
        """The pictures of the sweep."""
        return sorted(self.folder.glob("*.png"))

    def __repr__(self) -> str:
        num_trials = sum(len(study.trials) for study in self.studies)
        sizes = ", ".join(str(study.images_per_class) for study in self.studies)
        return f"TuneResult({num_trials} trials, {sizes} per class, {shown_from_here(self.folder)})"
