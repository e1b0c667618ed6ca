"""MLflow's database in a folder of runs: made whole or not at all, and set aside where it is broken.

MLflow makes its tables one by one. A process that is killed meanwhile, or two that begin at once, leave a database
that every later run would fail on.
"""

import contextlib
import os
import shutil
import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path

from distributed_dd.durable import OWNER_ONLY, refuse_irregular
from distributed_dd.locks import locked_when_free
from distributed_dd.outer.run_folder import free_name

COMPANIONS = ("-journal", "-wal", "-shm")


def make_ready(database: Path, say: Callable[[str], None]) -> None:
    """Have a database that MLflow can use at ``database``: the one that is there, or a new one.

    Raises:
        UserError: the folder cannot be written, or something else lies there. Errors of MLflow.
    """
    if _is_usable(database):
        return
    making = database.with_name(f"{database.name}.making")
    with locked_when_free(making, "MLflow database", say):
        if not _is_usable(database):  # else another first run has made it meanwhile
            if database.exists():
                refuse_irregular(database)
                aside = _set_aside(database)
                say(f"warning: {database} is damaged or half made; it is kept as {aside}, and a new one begins")
            # Of a name of its own: MLflow remembers, by name, what it made in this process.
            fresh = making / f"{uuid.uuid4().hex}.db"
            _make(fresh)
            os.replace(fresh, database)
    shutil.rmtree(making, ignore_errors=True)


def _make(database: Path) -> None:
    """Let MLflow make its tables in a file of that name, from nothing."""
    from mlflow import MlflowClient

    MlflowClient(f"sqlite:///{database.resolve()}").search_experiments(max_results=1)
    database.chmod(OWNER_ONLY)


def _is_usable(database: Path) -> bool:
    """Whether MLflow finished making it: its first experiment is the last thing that it writes.

    Only SQLite opens the file, and the answer is of one moment between the writes of others: a look at its bytes
    would find a live database shorter than it says, and closing it would undo the locks that this process holds.
    """
    try:
        if not database.exists():
            return False
        refuse_irregular(database)
        with contextlib.closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=rw", uri=True)) as connection:
            connection.execute("BEGIN")
            num_experiments = _number(connection, "SELECT count(*) FROM experiments")  # nobody writes from here on
            num_bytes = _number(connection, "PRAGMA page_size") * _number(connection, "PRAGMA page_count")
            logs_ahead = connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
            return num_experiments > 0 and (logs_ahead or database.stat().st_size >= num_bytes)
    except sqlite3.OperationalError as error:
        # A database that somebody writes to at this moment, or that is read-only, is left to MLflow.
        return "no such table" not in str(error) and "malformed" not in str(error)
    except sqlite3.DatabaseError:
        return False


def _number(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])


def _set_aside(database: Path) -> Path:
    aside = database.with_name(free_name(f"{database.name}.damaged", set(os.listdir(database.parent))))
    for path, place in zip((database, *_companions(database)), (aside, *_companions(aside)), strict=True):
        if path.exists():
            os.replace(path, place)
    return aside


def _companions(database: Path) -> list[Path]:
    return [database.with_name(database.name + ending) for ending in COMPANIONS]
