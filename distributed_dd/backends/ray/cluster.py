"""Independent work as Ray tasks, on a local Ray that is started on demand or on a given cluster."""

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from distributed_dd.allocator import keep_freed_memory
from distributed_dd.backends.engines import ENGINES, Engine
from distributed_dd.backends.local.engine import Local
from distributed_dd.backends.ray.chained import chained
from distributed_dd.backends.ray.connection import connect
from distributed_dd.errors import UserError
from distributed_dd.family import choice, require, setting
from distributed_dd.outer.ports import Link

SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True, kw_only=True)
class RayCluster:
    """Ray tasks: on the cluster at ``address`` (or RAY_ADDRESS), else on a local Ray started here."""

    address: str | None = setting("of a running cluster; null takes RAY_ADDRESS, or starts a local Ray", None)
    cpus_per_task: int = setting("cores, and so threads, of every task", 1, at_least=1, at_most=65_536)
    gpus_per_task: float | None = setting(
        "GPUs of every task; a fraction packs several on one card; null: 1 where the cluster has any", None
    )
    num_cpus: int | None = setting("cores of a local Ray (null: all)", None, at_least=1, at_most=65_536)
    max_in_flight: int | None = setting(
        "tasks handed to Ray at a time (null: twice what the cluster can run, 64 at least)",
        None,
        at_least=1,
    )
    max_retries: int = setting("times that a task is repeated after its worker or node died", 20, at_most=1_000_000)
    engine: Engine = choice(ENGINES, "who does the distillation", Local())
    wait_for_nodes: float = setting(
        "seconds to wait for a node that can hold a task, such as one that an autoscaler starts", 0.0
    )

    def __post_init__(self) -> None:
        gpus = self.gpus_per_task
        countable = gpus is None or 0 <= gpus <= 1 or gpus == int(gpus)
        require(countable, "gpus_per_task", f"got {gpus}", "a fraction of 1, or a whole number")

    def map(self, function: Callable[[Any, Any], Any], tasks: Sequence[Any], shared: Any) -> Iterator[tuple[int, Any]]:
        """``function(task, shared)`` as Ray tasks; (index, result) as they finish.

        A task whose worker or node dies is repeated (tasks are idempotent, and go on from what they saved).
        """
        import ray

        self.connect()
        self._check_fits(ray)
        remote: Any = ray.remote(**self._options(ray))(_in_worker)
        shared_reference = ray.put(shared)
        waiting = iter(enumerate(tasks))
        running: dict[Any, int] = {}
        try:
            while True:
                # A bounded window: thousands of queued tasks would fill the driver's memory.
                bound = self._bound(ray)
                while len(running) < bound and (item := next(waiting, None)) is not None:
                    # In a list, or Ray would hand every task a copy of its own.
                    running[remote.remote(function, item[1], [shared_reference])] = item[0]
                if not running:
                    return
                done, _ = ray.wait(list(running), num_returns=1)
                yield running.pop(done[0]), _result(ray, done[0], self.max_retries)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)

    def chain(self, function: Link, tasks: Iterable[Any], shared: Any, ahead: int) -> Iterator[Any]:
        """Tasks of which each begins where the one before ended, as Ray tasks made ahead; yields references.

        A task whose worker or node dies is made again, and so is a result that was lost with its node.
        """
        import ray

        self.connect()
        self._check_fits(ray)
        remote: Any = ray.remote(**self._options(ray), num_returns=2)(_link_in_worker)
        shared_reference = ray.put(shared)

        def submit(task: Any, state: Any) -> tuple[Any, Any]:
            return remote.remote(function, task, state, [shared_reference])

        yield from chained(submit, tasks, ahead)

    def fetch(self, handle: Any) -> Any:
        """What a reference stands for."""
        import ray

        return _result(ray, handle, self.max_retries)

    def threads_beside_a_task(self) -> int | None:
        """Threads of the driver while a task computes on its node, where the driver's node takes tasks."""
        import ray

        self.connect()
        here = ray.get_runtime_context().get_node_id()
        node: dict[str, Any] = next((node for node in ray.nodes() if node["NodeID"] == here), {"Resources": {}})
        cores = int(node["Resources"].get("CPU", 0))
        return max(1, cores - self.cpus_per_task) if cores else None

    def has_room(self) -> bool:
        """Whether a task could run now, beside what is running."""
        import ray

        free = ray.available_resources()
        return free.get("CPU", 0) >= self.cpus_per_task and free.get("GPU", 0) >= self._gpus(ray)

    def _options(self, ray: Any) -> dict[str, Any]:
        return {
            "num_cpus": self.cpus_per_task,
            "num_gpus": self._gpus(ray),
            "max_retries": self.max_retries,
            "retry_exceptions": [OSError],
        }

    def connect(self) -> None:
        """Join the cluster, or start a local Ray, unless one is joined already."""
        connect(self.address or os.environ.get("RAY_ADDRESS"), self.num_cpus)

    def resources_of_a_task(self) -> dict[str, float]:
        """What a task gets, as ``cpu`` and ``gpu``; the cluster is joined, and has room for one."""
        import ray

        self.connect()
        self._check_fits(ray)
        return {"cpu": self.cpus_per_task, "gpu": self._gpus(ray)}

    def gpus_of_a_rank(self) -> int:
        """GPUs of a rank by default: 1 where there are any."""
        import ray

        return int(ray.cluster_resources().get("GPU", 0) >= 1)

    def _gpus(self, ray: Any) -> float:
        """GPUs of a task; 1 by default where there are any, so that no two fight over a card unasked."""
        if self.gpus_per_task is not None:
            return self.gpus_per_task
        return 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0

    def _bound(self, ray: Any) -> int:
        """How many tasks may be with Ray now; grows with the cluster."""
        if self.max_in_flight is not None:
            return self.max_in_flight
        have, gpus = ray.cluster_resources(), self._gpus(ray)
        slots = have.get("CPU", 0) / self.cpus_per_task
        if gpus:
            slots = min(slots, have.get("GPU", 0) / gpus)
        return max(64, int(2 * slots))

    def _check_fits(self, ray: Any) -> None:
        """Refuse a task that no node can hold: it would wait for ever."""
        wanted = {"CPU": self.cpus_per_task, "GPU": self._gpus(ray)}
        nodes = _nodes(ray)
        if not _any_holds(nodes, wanted) and self.wait_for_nodes:
            nodes = self._waited(ray, wanted)
        if _any_holds(nodes, wanted):
            return
        largest = {name: max((node.get(name, 0) for node in nodes), default=0) for name in wanted}
        raise UserError(
            "cluster",
            f"a task wants {_in_words(wanted)}, and no node has that (at most {_in_words(largest)})",
            fix="lower cpus_per_task or gpus_per_task in the cluster file, or set wait_for_nodes where nodes "
            "are still to come",
        )

    def _waited(self, ray: Any, wanted: dict[str, float]) -> list[dict[str, float]]:
        """The nodes, once one of them can hold a task or the time is up.

        An autoscaler starts nodes for tasks that wait, and here none waits yet: it is asked outright.
        """
        from ray.autoscaler.sdk import request_resources

        ends = time.monotonic() + self.wait_for_nodes
        request_resources(bundles=[{name: math.ceil(value) for name, value in wanted.items() if value}])
        try:
            while not _any_holds(nodes := _nodes(ray), wanted) and time.monotonic() < ends:
                time.sleep(SECONDS_BETWEEN_LOOKS)
            return nodes
        finally:
            request_resources(bundles=[])  # or the node would be kept for ever


def _nodes(ray: Any) -> list[dict[str, float]]:
    """What each node has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _any_holds(nodes: Sequence[dict[str, float]], wanted: dict[str, float]) -> bool:
    return any(all(node.get(name, 0) >= value for name, value in wanted.items()) for node in nodes)


def _in_words(resources: dict[str, float]) -> str:
    return " and ".join(f"{value:g} {name}" for name, value in resources.items() if value or name == "CPU")


_SHARED: dict[str, Any] = {}
"""In a worker: what the tasks of the map at hand share, by its reference."""


def _in_worker(function: Callable[[Any, Any], Any], task: Any, shared: list[Any]) -> Any:
    """Run a task with what Ray gave it: as many threads as cores, and no GPU that is not its own."""
    import ray

    assigned = ray.get_runtime_context().get_assigned_resources()
    as_one_worker(assigned.get("CPU", 1), assigned.get("GPU", 0))
    (reference,) = shared
    if reference.hex() not in _SHARED:
        _SHARED.clear()
        _SHARED[reference.hex()] = ray.get(reference)
    return function(task, _SHARED[reference.hex()])


def _link_in_worker(function: Link, task: Any, state: Any, shared: list[Any]) -> tuple[Any, Any]:
    """Run a task of a chain, as `_in_worker` does."""
    return _in_worker(lambda own_task, own_shared: function(own_task, state, own_shared), task, shared)


def as_one_worker(cpus: float, gpus: float) -> None:
    """Let this process take no more than Ray counts for it, before torch is first used in it."""
    # Read by torch's compiler: its own default is a pool of processes on every core of the node.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    if not gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch

    torch.set_num_threads(max(1, int(cpus)))
    if 0 < gpus < 1 and torch.cuda.is_available():
        # Ray counts shares of a card and does not enforce them: one task could take all its memory.
        torch.cuda.set_per_process_memory_fraction(gpus)
    keep_freed_memory()


def _result(ray: Any, reference: Any, max_retries: int) -> Any:
    lost = (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError)
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        if isinstance(error.cause, ray.exceptions.RayError):
            raise _ray_failed(error.cause) from None
        raise
    except lost as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            "cluster",
            f"the worker or node of a task died {max_retries + 1} times: {reason}",
            fix="run the same command again, it goes on from what was saved; if memory ran out, raise "
            "cpus_per_task or gpus_per_task in the cluster file",
        ) from None
    except ray.exceptions.RayError as error:
        raise _ray_failed(error) from None


def _ray_failed(error: Exception) -> UserError:
    """The error where Ray itself lost something that a task needed, such as a node with its objects."""
    lines = str(error).splitlines()
    problem = f"{type(error).__name__}: {lines[0] if lines else ''}"
    return UserError("cluster", problem, fix="run the same command again, it goes on from what was saved")
