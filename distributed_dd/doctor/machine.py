"""Room and cores that a run has on this machine."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from distributed_dd.doctor.finding import Finding
from distributed_dd.errors import UserError
from distributed_dd.places import cache_folder

GIB = 2**30
LITTLE_DISK, LITTLE_SHARED = 2 * GIB, GIB
FULL = 0.95
"""Of a disk: beyond, Ray starts no tasks that it would have to spill."""
SHARED = Path("/dev/shm")
GROUPS = Path("/sys/fs/cgroup")


def machine(output: Path) -> Iterator[Finding]:
    """Disks, shared memory, cores, the cache of decoded data; ``output``: where results go."""
    yield _disk("output", output, "output=FOLDER on another disk")
    yield _disk("temp folder", Path(tempfile.gettempdir()), "free some, or TMPDIR=FOLDER on another disk")
    yield _shared_memory()
    yield _cores()
    yield _cache()


def _disk(subject: str, folder: Path, to_do: str) -> Finding:
    there = _existing(folder)
    try:
        usage = shutil.disk_usage(there)
    except OSError as error:
        return Finding(subject, "note", f"{folder}: {error.strerror}", to_do)
    text = f"{folder}: {usage.free / GIB:,.1f} GiB free"
    if not os.access(there, os.W_OK | os.X_OK) or not there.is_dir():
        return Finding(subject, "note", f"{folder} cannot be written", to_do)
    if usage.free < LITTLE_DISK:
        return Finding(subject, "note", f"{text}, which experts and checkpoints soon fill", to_do)
    if usage.free < (1 - FULL) * usage.total:
        return Finding(subject, "note", f"{text}, but more than {FULL:.0%} are used, where Ray stops", to_do)
    return Finding(subject, "ok", text)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    folder = folder.absolute()
    return next((place for place in (folder, *folder.parents) if place.exists()), Path("/"))


def _shared_memory() -> Finding:
    try:
        size = shutil.disk_usage(SHARED).total
    except OSError:
        return Finding(
            "shared memory", "note", f"no {SHARED}: Ray takes the disk, which is slow", "mount a tmpfs there"
        )
    text = f"{SHARED}: {size / GIB:,.1f} GiB"
    if size < LITTLE_SHARED:
        return Finding("shared memory", "note", f"{text}: Ray takes the disk instead", "docker run --shm-size=8g")
    return Finding("shared memory", "ok", text)


def _cores() -> Finding:
    allowed = len(os.sched_getaffinity(0))
    text = f"{allowed} of {os.cpu_count()} may be used"
    quota = quota_of(GROUPS, Path("/proc/self/cgroup"))
    threads = os.environ.get("OMP_NUM_THREADS")
    text += f", OMP_NUM_THREADS={threads}" if threads else ""
    if quota is None or quota >= allowed:
        return Finding("cores", "ok", text)
    few = max(1, round(quota))
    text = f"{text}, and the container has the time of {quota:g}"
    return Finding("cores", "note", text, "" if threads == str(few) else f"export OMP_NUM_THREADS={few}")


def quota_of(groups: Path, own: Path) -> float | None:
    """Cores whose time this process's control group has, the least of those above it; None: no limit."""
    quotas = []
    with suppress(OSError, ValueError, IndexError):
        for line in own.read_text().splitlines():
            _, controllers, place = line.split(":", 2)
            group = groups / ("cpu" if controllers else "") / place.lstrip("/")
            for folder in (group, *group.parents):
                if folder.is_relative_to(groups) and (not controllers or "cpu" in controllers.split(",")):
                    quotas.append(_quota_in(folder))
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota_in(folder: Path) -> float | None:
    with suppress(OSError, ValueError):
        limit, period = (folder / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    with suppress(OSError, ValueError):
        limit, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return None if int(limit) <= 0 else int(limit) / int(period)
    return None


def _cache() -> Finding:
    try:
        return _disk("data cache", cache_folder(), "DISTRIBUTED_DD_CACHE=FOLDER on another disk")
    except UserError as error:
        return Finding("data cache", "note", f"{error.where} {error.problem}: data are decoded anew", "set it")
