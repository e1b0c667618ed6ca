"""The pages: served on loopback from the runs' own database, or refused with a reason."""

import json
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request

from distributed_dd.cli import main


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_folder_without_runs_is_refused(tmp_path, capsys):
    assert main(["ui", str(tmp_path)]) == 3
    assert "no run in this folder was tracked" in capsys.readouterr().err


def test_a_port_that_is_taken_is_refused(tmp_path, capsys):
    sqlite3.connect(tmp_path / "mlflow.db").close()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["ui", str(tmp_path), "--port", str(taken.getsockname()[1])]) == 1
    told = capsys.readouterr()
    assert "--port" in told.err and "http" not in told.out


def test_the_pages_are_served_until_they_are_ended(tiny_yaml, tmp_path):
    from distributed_dd.backends.mlflow.description import Description
    from distributed_dd.backends.mlflow.tracker import MlflowTracker

    place = tmp_path / "mlflow.db", tmp_path / "tracker.json"
    description = Description(experiment="distributed_dd/digits/datm", name="a run", parameters={}, tags={})
    MlflowTracker(*place, description, print).end("FINISHED")
    port = free_port()
    command = [sys.executable, "-m", "distributed_dd", "ui", str(tmp_path), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 360
        body = None
        while body is None:
            assert server.poll() is None and time.monotonic() < deadline
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as page:
                    body = page.read().decode()
            except OSError:
                time.sleep(0.3)
        assert "MLflow" in body
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=30)


def test_an_address_for_each_saved_view_is_told(tmp_path):
    """Of ordinary runs and of each study; the tag is what MLflow's own pages write."""
    from distributed_dd.backends.mlflow.description import Description
    from distributed_dd.backends.mlflow.tracker import MlflowTracker
    from distributed_dd.backends.mlflow.ui import views
    from distributed_dd.backends.mlflow.views import TAG, runs_view, sweep_view
    from distributed_dd.methods import words_by_kind

    description = Description(experiment="distributed_dd/digits/datm", name="a run", parameters={}, tags={})
    tracker = MlflowTracker(tmp_path / "mlflow.db", tmp_path / "tracker.json", description, print)

    words = words_by_kind()["trajectory_matching"]
    of_sweep = sweep_view("s-1", 10, ["T_minus", "T", "T_plus"], 150, words)
    for view in (runs_view(150, words), of_sweep, runs_view(300, words)):
        tracker.view(view)
    lines = views(f"sqlite:///{tmp_path / 'mlflow.db'}", "http://127.0.0.1:5000")
    assert len(lines) == 2, "a view that is kept again replaces itself"
    (line,) = [line for line in lines if "s-1, 10 per class" in line]
    key = line.partition("viewStateShareKey=")[2].partition("&")[0]
    tags = tracker.client.get_experiment(tracker.experiment_id).tags
    envelope = json.loads(tags[TAG + key])
    assert {"name", "createdAt", "updatedAt", "state"} == set(envelope)
    state = json.loads(envelope["state"])
    assert state["searchFilter"] == "tags.sweep = 's-1' and tags.images_per_class = '10'"
    assert state["selectedColumns"] == state["columnOrder"] and "params.`T_minus`" in state["columnOrder"]
    assert [chart["type"] for chart in state["compareRunCharts"]].count("SCATTER") == 2
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == {state["compareRunSections"][0]["uuid"]}


def test_an_experiment_without_views_gets_the_plain_address(tmp_path):
    from distributed_dd.backends.mlflow.description import Description
    from distributed_dd.backends.mlflow.tracker import MlflowTracker
    from distributed_dd.backends.mlflow.ui import views

    MlflowTracker(
        tmp_path / "m.db", tmp_path / "t.json", Description(experiment="e", name="r", parameters={}, tags={}), print
    )
    assert views(f"sqlite:///{tmp_path / 'm.db'}", "http://127.0.0.1:5000") == [
        "http://127.0.0.1:5000: choose Model training at the top left, then an experiment"
    ]
