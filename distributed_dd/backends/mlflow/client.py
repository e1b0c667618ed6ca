"""The way to MLflow's server: the one of the environment, or a database in the folder of runs."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distributed_dd.backends.mlflow.database import make_ready


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
    return MlflowClient(uri), uri


def quieten() -> None:
    """MLflow narrates the creation of its database; a person need not read it."""
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    for name in ("mlflow", "mlflow.store.db.utils", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
