"""MLflow's database: whole or not at all, and a broken one is set aside."""

import os
import sqlite3
import subprocess
import sys

import pytest

from distributed_dd.backends.mlflow.database import make_ready
from distributed_dd.backends.mlflow.description import Description
from distributed_dd.backends.mlflow.tracker import MlflowTracker


def half_made(database):
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE experiments (experiment_id INTEGER)")
    connection.execute("CREATE TABLE metrics (key TEXT)")
    connection.commit()
    connection.close()


def cut_short(database):
    """As a full disk or a broken copy leaves it."""
    make_ready(database, print)
    os.truncate(database, database.stat().st_size // 2)


DAMAGES = {
    "cut short": cut_short,
    "half made": half_made,
    "empty": lambda database: database.touch(),
    "no database": lambda database: database.write_bytes(b"garbage" * 100),
    "a killed attempt beside it": lambda database: (
        (database.parent / "mlflow.db.making").mkdir(),
        half_made(database.parent / "mlflow.db.making" / "mlflow.db"),
    ),
}

BETWEEN_TWO_PAGES = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("BEGIN EXCLUSIVE")
file = open(sys.argv[1], "r+b", buffering=0)
file.seek(28)
num_pages = int.from_bytes(file.read(4), "big")
file.seek(28)
file.write((num_pages + 10).to_bytes(4, "big"))
print("ready", flush=True)
sys.stdin.readline()
"""
"""A writer in the middle of its commit: the first page says already how many there will be."""


@pytest.mark.parametrize("what", DAMAGES)
def test_a_broken_database_does_not_poison_later_runs(tmp_path, what):
    database, said = tmp_path / "mlflow.db", []
    DAMAGES[what](database)
    before = database.read_bytes() if database.exists() else None
    description = Description(experiment="e", name="r", parameters={}, tags={})
    tracker = MlflowTracker(database, tmp_path / "tracker.json", description, said.append)
    tracker.metrics(1, {"matching_loss": 1.0})
    tracker.end("FINISHED")
    assert not tracker.broken and len(tracker.client.get_metric_history(tracker.run_id, "matching_loss")) == 1
    if before is not None:
        assert (tmp_path / "mlflow.db.damaged.1").read_bytes() == before and "is kept as" in said[0]
    content = database.read_bytes()
    make_ready(database, said.append)
    assert database.read_bytes() == content and not (tmp_path / "mlflow.db.making").exists()


def test_a_database_that_is_written_to_is_never_taken_for_a_damaged_one(tmp_path):
    database, said = tmp_path / "mlflow.db", []
    make_ready(database, said.append)
    inode = database.stat().st_ino
    command = [sys.executable, "-c", BETWEEN_TWO_PAGES, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "ready\n"
        make_ready(database, said.append)
        writer.communicate("go\n")
    assert not said and database.stat().st_ino == inode
