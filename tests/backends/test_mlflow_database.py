"""MLflow's database: whole or not at all, and a broken one is set aside."""

import sqlite3

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


DAMAGES = {
    "half made": half_made,
    "empty": lambda database: database.touch(),
    "no database": lambda database: database.write_bytes(b"garbage" * 100),
    "a killed attempt beside it": lambda database: (
        (database.parent / "mlflow.db.making").mkdir(),
        half_made(database.parent / "mlflow.db.making" / "mlflow.db"),
    ),
}


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
