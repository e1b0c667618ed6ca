"""The pages: served on loopback from the runs' own database, or refused with a reason."""

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
    from distributed_dd.backends.mlflow_tracker import Description, MlflowTracker

    place = tmp_path / "mlflow.db", tmp_path / "tracker.json"
    told = Description("distributed_dd/digits/datm", "a run", {}, {})
    MlflowTracker(*place, told, print).end("FINISHED")
    port = free_port()
    command = [sys.executable, "-m", "distributed_dd", "ui", str(tmp_path), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 90
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
