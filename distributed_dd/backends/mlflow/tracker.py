"""Runs in MLflow. Whatever fails here warns once and never stops a run."""

import functools
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from distributed_dd.backends.mlflow.client import client_of
from distributed_dd.backends.mlflow.description import Description, read_tracked
from distributed_dd.backends.mlflow.views import View
from distributed_dd.errors import UserError
from distributed_dd.outer.run_folder import Metrics
from distributed_dd.secrecy import values_without_secrets, without_secrets

PARAMETER_LIMIT, TAG_LIMIT = 6000, 5000
METRICS_PER_BATCH, MOST_METRICS = 200, 1000
CHILDREN_AT_A_TIME = 100
DIGEST_DIGITS = 16
LONGEST_REASON = 200
REST = "\n\nThe rest is in report.md, among the artefacts."
F = TypeVar("F", bound=Callable[..., Any])


def never_stops_a_run(method: F) -> F:
    """Turn any failure into one warning; further calls do nothing."""

    @functools.wraps(method)
    def guarded(self: "MlflowTracker", *args: Any, **kwargs: Any) -> Any:
        if self.broken:
            return None
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            self.broken = True
            lines = str(error).splitlines()
            text = without_secrets(lines[0] if lines else repr(error))[:LONGEST_REASON]
            self.warn(
                f"warning: MLflow failed, the run goes on without it ({text}); distributed-dd import "
                "RUN_FOLDER tells it later"
            )
            return None

    return guarded  # type: ignore[return-value]


class MlflowTracker:
    """One MLflow run per run folder; a resumed run goes on in the same one.

    Args:
        record: file that keeps the description, and the run's id on each server; written before any server is
            asked, so that a run that no server heard of can be sent later.
        warn: called with a line for a person; once, if MLflow fails.
        metrics: what the run records itself; the server is brought level with it.
    """

    def __init__(
        self,
        database: Path,
        record: Path,
        description: Description,
        warn: Callable[[str], None],
        metrics: Metrics | None = None,
    ) -> None:
        self.broken, self.warn, self.run_id = False, warn, ""
        self._pending: list[Any] = []
        self._record, self._metrics = record, metrics
        parameters, tags = map(values_without_secrets, (description.parameters, description.tags))
        self.description = replace(description, parameters=parameters, tags=tags)
        self._ids: dict[str, str] = {}
        self._server, self._resumed, self._logged = "", False, -1
        self._begin(database)

    @never_stops_a_run
    def _begin(self, database: Path) -> None:
        if self._record.exists():
            try:
                self._ids = read_tracked(self._record, self.description.name)["runs"]
            except UserError as error:
                self.warn(f"warning: {error.where} {error.problem}; MLflow gets a new run for what is in this folder")
        self._keep("")
        self._open(database)

    def _keep(self, status: str) -> None:
        self.description.keep(self._record, self._ids, status)

    def _open(self, database: Path) -> None:
        self.client, uri = client_of(database, self.warn)
        self._server = hashlib.sha256(uri.encode()).hexdigest()  # an address may hold a password
        self.experiment_id = self._experiment(database, uri)
        if self._is_known(self._ids.get(self._server)):
            self.run_id, self._resumed = self._ids[self._server], True
            self.client.update_run(self.run_id, status="RUNNING")
            known = self.client.get_run(self.run_id)
            self._began = known.info.start_time
            # Such as the sweep above it, which the server had not heard of when the run began.
            for key in self.description.tags.keys() - known.data.tags.keys():
                self.client.set_tag(self.run_id, key, self.description.tags[key])
            self._logged = max(self._steps_of(self.description.loss), default=-1)
            self._describe(known)
            self._level()
            return
        description = self.description
        run = self.client.create_run(self.experiment_id, run_name=description.name, tags=dict(description.tags))
        self.run_id, self._logged, self._began = run.info.run_id, -1, run.info.start_time
        # Before anything else that may fail: a sweep finds the run by it, and a resumed run goes on in it.
        self._ids[self._server] = self.run_id
        self._keep("")
        self._describe(run)
        self._level()

    def _describe(self, known: Any) -> None:
        """Log parameters and data where the server's run ``known`` lacks them."""
        if not known.data.params:
            self._log_parameters(self.description.parameters)
        if not (known.inputs and known.inputs.dataset_inputs):
            self._log_dataset(self.description.dataset)

    def _level(self) -> None:
        """Bring the server level with ``metrics.jsonl``: send what it lacks, and nothing twice.

        A process that was killed may have recorded steps that it had not sent yet.
        """
        if self._metrics is None:
            return
        known: dict[str, set[int]] = {}
        for values in self._metrics.read():
            step = values.pop("step")
            self._logged = max(self._logged, step)
            for key, value in values.items():
                if not isinstance(value, int | float) or isinstance(value, bool):
                    continue
                if key not in known:
                    known[key] = self._steps_of(key)
                if step not in known[key]:
                    self._pending.append(self._metric(key, value, step))
            if len(self._pending) >= METRICS_PER_BATCH:
                self._flush()
        self._flush()

    def _steps_of(self, key: str) -> set[int]:
        """Steps for which the server has a metric."""
        return {metric.step for metric in self.client.get_metric_history(self.run_id, key)} if self._resumed else set()

    def _metric(self, key: str, value: float, step: int) -> Any:
        from mlflow.entities import Metric

        return Metric(key, rounded(value), int(time.time() * 1000), step)

    def _experiment(self, database: Path, uri: str) -> str:
        known = self.client.get_experiment_by_name(self.description.experiment)
        if known is not None:
            return str(known.experiment_id)
        place = None
        if uri.startswith("sqlite"):
            place = (database.resolve().parent / "mlartifacts").as_uri()
        try:
            return str(self.client.create_experiment(self.description.experiment, artifact_location=place))
        except Exception:
            # Another process may have made it since.
            known = self.client.get_experiment_by_name(self.description.experiment)
            if known is None:
                raise
            return str(known.experiment_id)

    def _is_known(self, run_id: str | None) -> bool:
        """Whether the server still has the run: its database may have been deleted."""
        from mlflow.exceptions import MlflowException

        if run_id is None:
            return False
        try:
            return bool(self.client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def _log_parameters(self, parameters: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        values = [Param(key, str(value)[:PARAMETER_LIMIT]) for key, value in parameters.items()]
        self.client.log_batch(self.run_id, params=values)

    def _log_dataset(self, dataset: Mapping[str, Any] | None) -> None:
        """The data by our own SHA-256; nothing is uploaded. MLflow's digest would cover a first part only."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        if dataset is None:
            return
        profile = json.dumps({key: value for key, value in dataset.items() if key != "name"})
        entry = Dataset(dataset["name"], dataset["sha256"][:DIGEST_DIGITS], "local", "{}", profile=profile)
        self.client.log_inputs(self.run_id, [DatasetInput(entry, [InputTag("mlflow.data.context", "train")])])

    @property
    def last_step(self) -> int:
        """The last step that the server has; -1 without one."""
        return self._logged

    @never_stops_a_run
    def view(self, view: View) -> None:
        """Keep a view of the experiment's runs for people to choose."""
        key, value = view.tag()
        self.client.set_experiment_tag(self.experiment_id, key, value)

    @never_stops_a_run
    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one outer step, sent in batches; steps already logged before a kill are skipped."""
        if step <= self._logged:
            return
        self._pending += [self._metric(key, value, step) for key, value in values.items()]
        if len(self._pending) >= METRICS_PER_BATCH or "validation_accuracy" in values:
            self._flush()

    @never_stops_a_run
    def picture(self, name: str, step: int, png: Path) -> None:
        """A picture at an outer step, shown with a slider in MLflow's UI."""
        from PIL import Image

        self._flush()
        with Image.open(png) as image:
            self.client.log_image(self.run_id, image.convert("RGB"), key=name, step=step, synchronous=True)

    @never_stops_a_run
    def artefact(self, path: Path) -> None:
        """A file or a folder, kept with the run."""
        if path.is_dir():
            self.client.log_artifacts(self.run_id, str(path), path.name)
        else:
            self.client.log_artifact(self.run_id, str(path))

    @never_stops_a_run
    def summary(self, values: Mapping[str, float]) -> None:
        """Final numbers, without a step."""
        for key, value in values.items():
            self.client.log_metric(self.run_id, key, rounded(value))

    @never_stops_a_run
    def report(self, report: Mapping[str, Any], page: str = "") -> None:
        """The final scores of ``report.json``, each network's of the first row, and the page as the run's description.

        Of the other rows the means alone: MLflow draws a panel for every number.
        """
        first, *_ = rows = report["rows"]
        self.summary({f"test_accuracy_{row['name']}": row["accuracy_mean"] for row in rows})
        if first["num_networks"] > 1:  # of one network no spread is known
            self.summary({f"test_accuracy_std_{first['name']}": first["accuracy_std"]})
        scores = enumerate(first.get("accuracies", ()))
        values = [self._metric(f"test_accuracy_of_each_network_{first['name']}", score, n) for n, score in scores]
        self.client.log_batch(self.run_id, metrics=values)
        if page:
            self.client.set_tag(self.run_id, "mlflow.note.content", _cut(without_secrets(page)))

    @never_stops_a_run
    def system(self, values: Mapping[str, float]) -> None:
        """Measurements of the nodes; the step is seconds since the run began, in whichever process."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        step = max(0, (now - self._began) // 1000)
        metrics = [Metric(f"system/{key}", rounded(value), now, step) for key, value in values.items()]
        self.client.log_batch(self.run_id, metrics=metrics)

    @never_stops_a_run
    def tag(self, tags: Mapping[str, str]) -> None:
        """Words by which runs are found."""
        for key, value in tags.items():
            self.client.set_tag(self.run_id, key, without_secrets(value)[:TAG_LIMIT])

    @never_stops_a_run
    def end(self, status: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED; whatever it lacks of the file is sent first."""
        self._flush()
        if self._resumed:
            self._level()
        self.client.set_terminated(self.run_id, status)
        self._keep(status)

    @never_stops_a_run
    def other(
        self,
        record: Path,
        *,
        status: str | None = None,
        tags: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Change another run of the server, whose own process may be gone; ``record`` is its file."""
        run_id = read_tracked(record)["runs"].get(self._server) if record.exists() else None
        if run_id is None:
            return
        for key, value in (tags or {}).items():
            self.client.set_tag(run_id, key, value)
        for key, number in (metrics or {}).items():
            self.client.log_metric(run_id, key, rounded(number))
        if status is not None:
            self.client.set_terminated(run_id, status)

    @never_stops_a_run
    def settle_children(self, statuses: Mapping[str, str]) -> None:
        """Close the runs below this one whose processes are gone, also those that an earlier driver started.

        ``statuses``: how a run ended, by the name of its folder; KILLED where that is not known.
        """
        where = f"tags.`mlflow.parentRunId` = '{self.run_id}' AND attributes.status = 'RUNNING'"
        while running := self.client.search_runs([self.experiment_id], where, max_results=CHILDREN_AT_A_TIME):
            for run in running:
                status = statuses.get(run.data.tags.get("run_folder", ""), "KILLED")
                self.client.set_terminated(run.info.run_id, status)

    def _flush(self) -> None:
        for first in range(0, len(self._pending), MOST_METRICS):
            self.client.log_batch(self.run_id, metrics=self._pending[first : first + MOST_METRICS])
        self._pending = []


def _cut(page: str) -> str:
    """Whole lines, as many as a tag takes."""
    if len(page) <= TAG_LIMIT:
        return page
    return page[: TAG_LIMIT - len(REST)].rpartition("\n")[0] + REST


def rounded(value: float) -> float:
    """Six digits: MLflow's table shows all that it is given; ``metrics.jsonl`` has the rest."""
    return float(f"{float(value):.6g}")
