"""What a piece of work cost: seconds, and the most memory that its process held."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
RESET_HIGH_WATER_MARK = "5"


@dataclass
class Footprint:
    """Seconds of wall clock and peak bytes: of the CUDA allocator, or of the resident set."""

    seconds: float = 0.0
    peak_bytes: int = 0


@contextmanager
def footprint() -> Iterator[Footprint]:
    """Measure the body; the numbers are there when it ends."""
    cost = Footprint()
    reset_peak()
    started = time.monotonic()
    try:
        yield cost
    finally:
        cost.seconds = round(time.monotonic() - started, 2)
        cost.peak_bytes = peak_bytes()


def reset_peak() -> None:
    """Start the peak anew. Without Linux's /proc the peak is that of the process's whole life."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    with suppress(OSError):
        CLEAR.write_text(RESET_HIGH_WATER_MARK)


def peak_bytes() -> int:
    """Peak bytes since `reset_peak`."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def current_bytes() -> int:
    """Bytes held now."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    return _status("VmRSS")


def _status(key: str) -> int:
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), 0)


def memory_for_a_process(num_processes: int) -> int:
    """Bytes that a process may plan with: of its GPU, or its part of what the host has free."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[1]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 4 * 2**30
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return free // num_processes
