"""The way to MLflow's server: the one of the environment, or a database in the folder of runs."""

import functools
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distributed_dd.backends.mlflow.database import make_ready

MOST_TRIES, SECONDS_BETWEEN_TRIES = 5, 0.1
COLLISIONS = ("constraint", "duplicate")
"""What SQLite, PostgreSQL, MySQL and SQL Server say of a row that is there already."""


class ClientAmongOthers:
    """An MLflow client whose calls are repeated where another process wrote the same row at the same moment.

    MLflow looks whether a data set, a tag or an experiment's view is there, and adds it if not. Of two processes
    that both found nothing, one gets an error, though what it wanted is there: the second try finds it.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)

        @functools.wraps(call)
        def repeated(*args: Any, **kwargs: Any) -> Any:
            for _ in range(MOST_TRIES - 1):
                try:
                    return call(*args, **kwargs)
                except Exception as error:
                    if not collided(error):
                        raise
                    time.sleep(SECONDS_BETWEEN_TRIES)
            return call(*args, **kwargs)

        return repeated


def collided(error: Exception) -> bool:
    """Whether MLflow's database refused a row because another process had just added it."""
    return any(word in str(error).lower() for word in COLLISIONS)


def client_of(database: Path, say: Callable[[str], None] = print) -> tuple[Any, str]:
    """A client of the server in MLFLOW_TRACKING_URI, or of ``database``, which is made; and the address."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # A server that does not answer is given half a minute, not MLflow's several.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    quieten()
    from mlflow import MlflowClient

    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        make_ready(database, say)
        uri = f"sqlite:///{database.resolve()}"
    return ClientAmongOthers(MlflowClient(uri)), uri


def quieten() -> None:
    """MLflow narrates the creation of its database; a person need not read it."""
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    for name in ("mlflow", "mlflow.store.db.utils", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
