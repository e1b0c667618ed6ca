"""Joining a Ray cluster, or starting a Ray of this machine that nobody else can reach."""

import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from distributed_dd.children import PACKAGE
from distributed_dd.errors import MissingInputError, UserError

SECONDS_TO_ANSWER = 10.0
MOST_STARTS = 3
OWNER_ONLY = 0o600
TOKEN = Path("~/.ray/auth_token")
"""Where Ray looks for the token that opens a cluster, unless the environment names another."""
_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


def is_installed() -> bool:
    """Whether there is a Ray to start or to join."""
    try:
        import ray  # noqa: F401
    except ImportError:
        return False
    return True


def connect(address: str | None, num_cpus: int | None) -> None:
    """Join the cluster at ``address``, or start a local Ray with ``num_cpus`` cores, unless one is joined already.

    A local Ray listens on the loopback interface alone, and wants a token that only its owner can read: whoever
    reaches a Ray can run code in it.

    Raises:
        MissingInputError: the cluster cannot be reached. UserError: a local Ray does not start.
    """
    import ray

    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    handler = signal.getsignal(signal.SIGTERM)
    if address:
        _check_answers(address)
        try:
            _init(address=address)
        except ConnectionError as error:
            raise MissingInputError(
                f"Ray cluster {address}",
                f"cannot be reached: {error}",
                fix="start it, or unset RAY_ADDRESS; if it wants a token, as every cluster of launch/ does: "
                "export RAY_AUTH_MODE=token",
            ) from None
    else:
        _keep_token_private()
        _start(num_cpus)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray's own would print its stack and abort


def _start(num_cpus: int | None) -> None:
    """Start a Ray here; again where its processes were not there in time, as after an installation on a slow disk.

    Raises:
        UserError: it does not start.
    """
    import ray

    for attempt in range(1, MOST_STARTS + 1):
        try:
            with _on_loopback():
                # Said outright: without an address Ray would look for a cluster that once ran on this machine.
                return _init(address="local", num_cpus=num_cpus, include_dashboard=False)
        except Exception as error:  # Ray's own has no better class
            if "timed out" not in str(error):
                raise
            ray.shutdown()
            if attempt == MOST_STARTS:
                raise UserError(
                    "Ray on this machine",
                    f"did not start in {MOST_STARTS} tries: {str(error).splitlines()[0]}",
                    fix="the same command when the machine has less to do, or without Ray: --on clusters/in_process",
                ) from None


def _init(**options: Any) -> None:
    import ray
    from ray.job_config import JobConfig

    job = JobConfig()
    job._py_driver_sys_path = _Places()
    ray.init(log_to_driver=False, logging_level=logging.CRITICAL, job_config=job, **options)
    # A paragraph of Ray's about every process that dies, on the screen whatever it is told: ours says it in a line.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None


class _Places(list[str]):
    """Where workers look for modules before anywhere else, as Ray collects it, without the current folder.

    Ray adds the folder that the driver runs in: a ``torch.py`` that came with a downloaded archive would run. Where
    this package lies is trusted already.
    """

    def extend(self, places: Iterable[str]) -> None:
        here = os.path.realpath(os.curdir)
        own = {str(PACKAGE.parent), *map(os.path.realpath, filter(os.path.isabs, sys.path))}
        super().extend(place for place in places if os.path.realpath(place) != here or here in own)


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Have what Ray starts in here listen on the loopback interface alone.

    Ray has a switch for it, made for the firewalls of other systems. Ray reads it when it is imported, and the
    processes that it starts read the environment.
    """
    from ray._private import ray_constants

    before, environment = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(_LOOPBACK)
    ray_constants.ENABLE_RAY_CLUSTER, os.environ[_LOOPBACK] = False, "0"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        if environment is None:
            del os.environ[_LOOPBACK]
        else:
            os.environ[_LOOPBACK] = environment


def _keep_token_private() -> None:
    """Make the token that a local Ray will want, for its owner alone; Ray's own would be readable to everybody.

    Where the home folder cannot be written it is kept in the environment of this process and of its children.
    """
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or TOKEN).expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not opened for writing where there is one: other Rays of this user may want it.
        with suppress(FileExistsError):
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
            with os.fdopen(file, "w") as token:
                token.write(secrets.token_hex(32))
        if path.stat().st_mode & 0o077:
            path.chmod(OWNER_ONLY)
        if not path.read_text().strip():
            raise OSError("the token is empty")
    except OSError:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _check_answers(address: str) -> None:
    """Refuse an address where no program listens; Ray itself would try for minutes.

    Raises:
        MissingInputError: nothing answers at this address.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and port.isdigit()):
        return  # such as "auto": Ray knows
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise MissingInputError(
            f"Ray cluster {address}",
            f"cannot be reached: {error.strerror or error}",
            fix="start it (ray start --head), correct RAY_ADDRESS, or unset it for a Ray on this machine",
        ) from None
