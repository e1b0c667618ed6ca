"""Several processes that begin at the same moment, over the same data, each have their run in MLflow."""

import json
import subprocess
import sys

import pytest

from distributed_dd.backends.mlflow.client import collided
from distributed_dd.backends.mlflow.description import Description
from distributed_dd.backends.mlflow.tracker import MlflowTracker
from distributed_dd.backends.mlflow.views import View
from tests.conftest import ROOT

SQLITE = "(sqlite3.IntegrityError) UNIQUE constraint failed: datasets.experiment_id, datasets.name, datasets.digest"
DATA = {"name": "digits", "sha256": "a" * 64, "train": 3, "validation": 2, "test": 1}
ONE_OF_MANY = """
import sys
from pathlib import Path
from distributed_dd.backends.mlflow.description import Description
from distributed_dd.backends.mlflow.tracker import MlflowTracker
import mlflow
output, name = Path(sys.argv[1]), sys.argv[2]
(output / name).mkdir()
print("ready", flush=True)
sys.stdin.readline()
data = {"name": "digits", "sha256": "a" * 64, "train": 3, "validation": 2, "test": 1}
own = Description(experiment="exp/a", name=name, parameters={"seed": 0}, tags={"run_folder": name}, dataset=data)
tracker = MlflowTracker(output / "mlflow.db", output / name / "tracker.json", own, print)
tracker.metrics(1, {"matching_loss": 1.0})
tracker.end("FINISHED")
"""


def runs_in(folder):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    return client.search_runs([client.get_experiment_by_name("exp/a").experiment_id])


def begun(folder, say):
    described = Description(
        experiment="exp/a", name="run-1", parameters={"seed": 0}, tags={"dataset": "digits"}, dataset=DATA
    )
    return MlflowTracker(folder / "mlflow.db", folder / "tracker.json", described, say)


@pytest.mark.timeout(600)
def test_four_first_runs_at_once_are_all_tracked(tmp_path):
    command = [sys.executable, "-c", ONE_OF_MANY, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    processes = [subprocess.Popen([*command, f"run-{number}"], **pipes) for number in range(4)]
    assert all(process.stdout.readline() == "ready\n" for process in processes)
    outputs = [process.communicate("go\n")[0] for process in processes]
    assert not [process for process in processes if process.returncode]
    assert "MLflow failed" not in "".join(outputs)
    runs = runs_in(tmp_path)
    assert {run.data.tags["run_folder"] for run in runs} == {f"run-{number}" for number in range(4)}
    for run in runs:
        assert run.info.status == "FINISHED" and run.data.params == {"seed": "0"}
        assert run.data.metrics["matching_loss"] == 1 and len(run.inputs.dataset_inputs) == 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["mlflow.db"]


@pytest.mark.parametrize("call", ["create_experiment", "log_batch", "log_inputs", "set_experiment_tag", "set_tag"])
def test_a_row_that_another_process_has_just_added_is_no_failure(tmp_path, monkeypatch, call):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    real, refused = getattr(MlflowClient, call), []

    def once_refused(self, *args, **kwargs):
        if not refused:
            refused.append(call)
            raise MlflowException(SQLITE)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, call, once_refused)
    said: list[str] = []
    tracker = begun(tmp_path, said.append)
    tracker.view(View(name="a view", columns=(), charts=(), search=""))
    tracker.tag({"found": "yes"})
    tracker.metrics(1, {"matching_loss": 1.0})
    tracker.end("FINISHED")
    (run,) = runs_in(tmp_path)
    assert refused and not said and run.info.status == "FINISHED" and run.data.tags["found"] == "yes"
    assert run.data.params == {"seed": "0"} and len(run.inputs.dataset_inputs) == 1


@pytest.mark.parametrize(
    ("answer", "repeated"),
    [
        (SQLITE, True),
        ('duplicate key value violates unique constraint "dataset_pk"', True),
        ("(1062, \"Duplicate entry 'a-b' for key 'datasets.PRIMARY'\")", True),
        ("database is locked", False),
        ("API request failed with exception Connection refused", False),
    ],
    ids=["sqlite", "postgresql", "mysql", "locked", "nobody there"],
)
def test_only_a_collision_is_tried_again(answer, repeated):
    assert collided(RuntimeError(answer)) == repeated


def test_an_experiment_that_another_process_has_just_made_is_used(tmp_path, monkeypatch):
    from mlflow import MlflowClient

    begun(tmp_path, print).end("FINISHED")
    (tmp_path / "tracker.json").unlink()
    real, asked = MlflowClient.get_experiment_by_name, []

    def unknown_at_first(self, name):
        asked.append(name)
        return real(self, name) if len(asked) > 1 else None

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", unknown_at_first)
    said: list[str] = []
    begun(tmp_path, said.append).end("FINISHED")
    assert len(runs_in(tmp_path)) == 2 and not said


def test_a_run_whose_beginning_failed_half_way_is_found_and_completed(tmp_path, monkeypatch):
    """A sweep closes the runs of its trials by that record; a run that is begun again goes on in the same one."""
    from mlflow import MlflowClient

    with monkeypatch.context() as broken:
        broken.setattr(MlflowClient, "log_batch", lambda *args, **kwargs: 1 / 0)
        said: list[str] = []
        first = begun(tmp_path, said.append)
    assert first.broken and len(said) == 1
    ((_, run_id),) = json.loads((tmp_path / "tracker.json").read_text())["runs"].items()
    assert run_id == first.run_id
    begun(tmp_path, print).end("FINISHED")
    (run,) = runs_in(tmp_path)
    assert run.info.run_id == run_id and run.data.params == {"seed": "0"} and len(run.inputs.dataset_inputs) == 1
