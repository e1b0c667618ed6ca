"""Runs in MLflow. Whatever fails here warns once and never stops a run."""

import functools
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from distributed_dd.durable import read_json, write_json

PARAMETER_LIMIT = 6000
METRICS_PER_BATCH = 200
F = TypeVar("F", bound=Callable[..., Any])


class NoTracker:
    """The plain twin: tells nobody."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing; ``metrics.jsonl`` has it."""

    def picture(self, name: str, step: int, png: Path) -> None:
        """Nothing."""

    def artefact(self, path: Path) -> None:
        """Nothing."""

    def summary(self, values: Mapping[str, float]) -> None:
        """Nothing; ``report.json`` has it."""

    def end(self, status: str) -> None:
        """Nothing."""


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
            text = without_secrets(lines[0] if lines else repr(error))
            self.warn(f"warning: MLflow failed, the run goes on without it: {text}")
            return None

    return guarded  # type: ignore[return-value]


def without_secrets(text: str) -> str:
    """``text`` with the user and password of every address in it blotted out."""
    return re.sub(r"://[^/@\s]+@", "://***@", text)


class MlflowTracker:
    """One MLflow run per run folder; a resumed run goes on in the same one.

    Args:
        record: file that remembers the run's id.
        warn: told once if MLflow fails.
    """

    def __init__(
        self,
        database: Path,
        record: Path,
        experiment: str,
        name: str,
        parameters: Mapping[str, Any],
        tags: Mapping[str, str],
        warn: Callable[[str], None],
    ) -> None:
        self.broken, self.warn = False, warn
        self._pending: list[Any] = []
        self._open(database, record, experiment, name, parameters, tags)

    @never_stops_a_run
    def _open(
        self, database: Path, record: Path, experiment: str, name: str, parameters: Mapping, tags: Mapping
    ) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # A server that does not answer is given half a minute, not MLflow's several.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        _quieten()
        from mlflow import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{database.resolve()}"
        self.client = MlflowClient(uri)
        known = read_json(record) if record.exists() else {}
        server = hashlib.sha256(uri.encode()).hexdigest()  # an address may hold a password
        if known.get("server_sha256") == server:
            self.run_id = known["run_id"]
            self.client.update_run(self.run_id, status="RUNNING")
            history = self.client.get_metric_history(self.run_id, "matching_loss")
            self._logged = max((m.step for m in history), default=-1)
            return
        found = self.client.get_experiment_by_name(experiment)
        if found is None:
            place = None
            if uri.startswith("sqlite"):
                place = (database.resolve().parent / "mlartifacts").as_uri()
            experiment_id = self.client.create_experiment(experiment, artifact_location=place)
        else:
            experiment_id = found.experiment_id
        run = self.client.create_run(experiment_id, run_name=name, tags=dict(tags))
        self.run_id, self._logged = run.info.run_id, -1
        self._log_parameters(parameters)
        write_json(record, {"server_sha256": server, "run_id": self.run_id})

    def _log_parameters(self, parameters: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        values = [Param(key, str(value)[:PARAMETER_LIMIT]) for key, value in parameters.items()]
        self.client.log_batch(self.run_id, params=values)

    @never_stops_a_run
    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one outer step, sent in batches; steps already logged before a kill are skipped."""
        import time

        from mlflow.entities import Metric

        if step <= self._logged:
            return
        now = int(time.time() * 1000)
        self._pending += [Metric(key, float(value), now, step) for key, value in values.items()]
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
            self.client.log_metric(self.run_id, key, float(value))

    @never_stops_a_run
    def tag(self, tags: Mapping[str, str]) -> None:
        """Words by which runs are found."""
        for key, value in tags.items():
            self.client.set_tag(self.run_id, key, value)

    @never_stops_a_run
    def end(self, status: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED."""
        self._flush()
        self.client.set_terminated(self.run_id, status)

    @never_stops_a_run
    def close_other(self, run_id: str, status: str, tags: Mapping[str, str]) -> None:
        """Close another run of the same server."""
        for key, value in tags.items():
            self.client.set_tag(run_id, key, value)
        self.client.set_terminated(run_id, status)

    def _flush(self) -> None:
        if self._pending:
            self.client.log_batch(self.run_id, metrics=self._pending)
            self._pending = []


def closed(record: Path, by: "MlflowTracker | NoTracker", status: str, tags: Mapping[str, str]) -> None:
    """Close the run that ``record`` remembers, whose own process may have been stopped."""
    if isinstance(by, MlflowTracker) and not by.broken and record.exists():
        by.close_other(read_json(record)["run_id"], status, tags)


def _quieten() -> None:
    """MLflow narrates the creation of its database; a person need not read it."""
    import logging

    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    for name in ("mlflow", "mlflow.store.db.utils", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
