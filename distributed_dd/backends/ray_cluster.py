"""Independent work as Ray tasks, on a local Ray that is started on demand or on a given cluster."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from distributed_dd.allocator import keep_freed_memory
from distributed_dd.errors import MissingInputError, UserError
from distributed_dd.family import require, setting


@dataclass(frozen=True)
class RayCluster:
    """Ray tasks: on the cluster at ``address`` (or RAY_ADDRESS), else on a local Ray started here."""

    address: str | None = setting("of a running cluster; null takes RAY_ADDRESS, or starts a local Ray", None)
    cpus_per_task: int = setting("cores, and so threads, of every task", 1)
    gpus_per_task: float = setting("GPUs of every task; fractions pack several on one card", 0.0)
    num_cpus: int | None = setting("cores of a local Ray (null: all)", None)
    max_in_flight: int = setting("tasks handed to Ray at a time", 64)

    def __post_init__(self) -> None:
        require(self.cpus_per_task >= 1, "cpus_per_task", f"got {self.cpus_per_task}", "1 or more")
        require(self.max_in_flight >= 1, "max_in_flight", f"got {self.max_in_flight}", "1 or more")
        require(self.gpus_per_task >= 0, "gpus_per_task", f"got {self.gpus_per_task}", "0 or more")

    def map(
        self, function: Callable[[Any, Any], Any], tasks: Sequence[Any], shared: Any
    ) -> Iterator[tuple[int, Any]]:
        """``function(task, shared)`` as Ray tasks; (index, result) as they finish.

        A worker that dies is replaced and its task repeated (tasks are idempotent).
        """
        import ray

        self._connect()
        options: dict[str, Any] = {
            "num_cpus": self.cpus_per_task, "num_gpus": self.gpus_per_task, "max_retries": 3,
            "retry_exceptions": [OSError],
        }  # fmt: skip
        remote: Any = ray.remote(**options)(_with_threads)
        shared_reference = ray.put(shared)
        waiting = iter(enumerate(tasks))
        running: dict[Any, int] = {}
        try:
            while True:
                # A bounded window: thousands of queued tasks would fill the driver's memory.
                while len(running) < self.max_in_flight and (item := next(waiting, None)) is not None:
                    running[remote.remote(function, item[1], shared_reference)] = item[0]
                if not running:
                    return
                done, _ = ray.wait(list(running), num_returns=1)
                yield running.pop(done[0]), _result(ray, done[0])
        finally:
            for reference in running:
                ray.cancel(reference, force=True)

    def _connect(self) -> None:
        import ray

        if ray.is_initialized():
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        address = self.address or os.environ.get("RAY_ADDRESS")
        options: dict[str, Any] = {"address": address} if address else {"num_cpus": self.num_cpus}
        if not address:
            options["include_dashboard"] = False
        handler = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except ConnectionError as error:
            raise MissingInputError(
                f"Ray cluster {address}", f"cannot be reached: {error}", fix="start it, or unset RAY_ADDRESS"
            ) from None
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray's own would print its stack and abort
        self._check_fits(ray)

    def _check_fits(self, ray: Any) -> None:
        """A task that no node can hold would wait for ever: say so instead."""
        have = ray.cluster_resources()
        for name, wanted in (("CPU", self.cpus_per_task), ("GPU", self.gpus_per_task)):
            if wanted > have.get(name, 0):
                raise UserError(
                    "cluster", f"a task wants {wanted:g} {name}, the cluster has {have.get(name, 0):g}",
                    fix=f"lower {name.lower()}s_per_task in the cluster file",
                )  # fmt: skip


def _with_threads(function: Callable[[Any, Any], Any], task: Any, shared: Any) -> Any:
    """Run a task with as many threads as Ray gave it cores: more would fight over them."""
    import ray
    import torch

    cores = ray.get_runtime_context().get_assigned_resources().get("CPU", 1)
    torch.set_num_threads(max(1, int(cores)))
    keep_freed_memory()
    return function(task, shared)


def _result(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
