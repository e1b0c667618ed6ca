"""What a run ran on, for the record beside its numbers."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from distributed_dd import __version__

PACKAGES = ("torch", "torchvision", "ray", "deepspeed", "mlflow", "omegaconf", "safetensors", "numpy")


def versions() -> dict[str, str]:
    """Versions of everything that can change a number."""
    by_name = {"distributed_dd": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            by_name[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            by_name[package] = "not installed"
    return by_name


def environment() -> dict[str, Any]:
    """Versions, commit, machine, threads and the command."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "versions": versions(),
        "commit": commit(),
        "platform": platform.platform(),
        "processor": processor(),
        "gpu": gpu,
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "command": sys.argv[1:],
    }


def commit() -> str | None:
    """The commit this code is of, ``-dirty`` with changes; None where it is no checkout."""
    checkout = Path(__file__).parents[2]
    if not (checkout / "pyproject.toml").exists():
        return None  # installed: a repository around the environment is not this code's
    describe = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run([*describe, "--exclude=*"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
