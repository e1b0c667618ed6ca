"""What every node of a cluster is doing while a run goes on: cores, memory, network, GPUs."""

import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

SECONDS_BETWEEN_READINGS = 15.0
KEPT = (
    "cpu_utilization_percentage",
    "system_memory_usage_megabytes",
    "network_receive_megabytes",
    "network_transmit_megabytes",
)


class Meter:
    """Reads what MLflow's own monitors read, on the node where it is made."""

    def __init__(self) -> None:
        import logging

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

        self.monitors: list[Any] = [CPUMonitor(), NetworkMonitor()]
        try:
            from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

            self.monitors.append(GPUMonitor())
        except (ImportError, RuntimeError):
            pass  # there is none

    def read(self) -> dict[str, float]:
        """Percent and megabytes, by name; of each GPU its use and memory."""
        readings: dict[str, float] = {}
        for monitor in self.monitors:
            monitor.collect_metrics()
            readings |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        gpus = re.compile(r"gpu_\d+_(utilization_percentage|memory_usage_megabytes)")
        return {name: value for name, value in readings.items() if name in KEPT or gpus.fullmatch(name)}


class NodeMeters:
    """A meter on this node, and by an actor on every other node of the Ray that this process has joined."""

    def __init__(self) -> None:
        self._here: Meter | None = None
        self._there: dict[str, Any] = {}

    def read(self) -> dict[str, float]:
        """All readings, named ``<node>_<what>``; a node that does not answer is left out."""
        self._here = self._here or Meter()
        readings = _named(_word(socket.gethostname()), self._here.read())
        for node, meter in self._others().items():
            try:
                readings |= _named(node, _ray().get(meter.read.remote(), timeout=SECONDS_BETWEEN_READINGS))
            except Exception:  # of a node that went away, in one of Ray's many ways
                self._there.pop(node, None)
        return readings

    def stop(self) -> None:
        """End the actors."""
        if self._there and _ray().is_initialized():
            for meter in self._there.values():
                _ray().kill(meter)
        self._there = {}

    def _others(self) -> dict[str, Any]:
        ray = _ray()
        if ray is None or not ray.is_initialized():
            return {}
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        own = ray.get_runtime_context().get_node_id()
        for number, node in enumerate(ray.nodes()):
            # Several raylets of one machine, as in tests, have one name.
            name = f"{_word(node['NodeManagerHostname'])}_{number}"
            if node["Alive"] and node["NodeID"] != own and name not in self._there:
                place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                self._there[name] = ray.remote(num_cpus=0)(Meter).options(scheduling_strategy=place).remote()
        return self._there


@contextmanager
def metered(send: Callable[[Mapping[str, float]], None]) -> Iterator[None]:
    """Hand readings to ``send`` now and then, while the body runs."""
    ended = threading.Event()

    def read_now_and_then() -> None:
        meters = NodeMeters()
        while not ended.wait(SECONDS_BETWEEN_READINGS):
            try:
                send(meters.read())
            except Exception:
                break  # figures beside the run must not disturb it
        meters.stop()

    thread = threading.Thread(target=read_now_and_then, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=SECONDS_BETWEEN_READINGS)


def _ray() -> Any:
    """Ray, where this process uses it at all."""
    import sys

    return sys.modules.get("ray")


def _word(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name.split(".")[0])


def _named(node: str, readings: Mapping[str, float]) -> dict[str, float]:
    return {f"{node}_{name}": value for name, value in readings.items()}
