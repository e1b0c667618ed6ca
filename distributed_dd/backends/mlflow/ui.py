"""MLflow's pages for a folder of runs, on this machine alone."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from distributed_dd.backends.mlflow.client import quieten
from distributed_dd.backends.mlflow.views import TAG, address
from distributed_dd.children import child_python
from distributed_dd.errors import MissingInputError, UserError

HOST = "127.0.0.1"


def serve(output: Path, port: int, say: Callable[[str], None]) -> NoReturn:
    """Become MLflow's server for the runs in ``output``; it ends with Ctrl-C.

    One worker and no job runner: a quarter of a gigabyte, where MLflow's own choice takes six times that.

    Raises:
        MissingInputError: no runs were tracked there. UserError: the port is taken.
    """
    database = output / "mlflow.db"
    if not database.is_file():
        raise MissingInputError(
            str(database),
            "there is no such file: no run in this folder was tracked",
            allowed="the output= folder of a run (runs/ by default)",
            fix="run something first, with tracker=mlflow as it is by default",
        )
    refuse_taken(port)
    store = f"sqlite:///{database.absolute()}"
    say("in some five seconds, until Ctrl-C:")
    for line in views(store, f"http://{HOST}:{port}"):
        say(line)
    environment = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONSAFEPATH": "1",
    }
    # The server starts pythons of its own; none of them may take a module from the folder it happens to run in.
    arguments = ["ui", "--backend-store-uri", store, "--host", HOST, "--port", str(port), "--workers", "1"]
    command = child_python("mlflow", arguments)
    os.execve(command[0], command, environment)


def views(store: str, server: str) -> list[str]:
    """A line for each saved view of each experiment in ``store``, with the address that opens it."""
    quieten()
    from mlflow import MlflowClient

    lines = []
    for experiment in MlflowClient(store).search_experiments():
        for key, value in experiment.tags.items():
            if key.startswith(TAG) and (name := _name_of(value)):
                where = key.removeprefix(TAG)
                link = address(server, experiment.experiment_id, where, charts=True)
                lines.append(f"{experiment.name}, {name}: {link}")
    return lines or [f"{server}: choose Model training at the top left, then an experiment"]


def _name_of(view: str) -> str:
    """The name of a saved view; empty where another program kept something else there."""
    try:
        return str(json.loads(view)["name"])
    except (ValueError, KeyError, TypeError):
        return ""


def refuse_taken(port: int) -> None:
    """Refuse a port that another program listens on already.

    Raises:
        UserError: the port cannot be used.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"port {port}", f"cannot be used: {error.strerror}", fix="choose another: --port 5001"
            ) from None
