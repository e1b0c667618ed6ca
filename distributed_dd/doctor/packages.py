"""Packages that runs use, as they are installed."""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from distributed_dd.doctor.finding import Finding, State

PYTHON = (3, 11)
FLOORS = {
    "torch": (2, 10),
    "torchvision": (0, 25),
    "omegaconf": (2, 3),
    "ray": (2, 59),
    "deepspeed": (0, 18),
    "mlflow": (3, 10),
}
"""The oldest versions, as pyproject.toml has them."""
WITHOUT = {
    "ray": "runs in one process alone, --on clusters/in_process",
    "deepspeed": "no distillation over several processes",
    "mlflow": "no tracking: tracker=none",
}
"""What works without them; nothing does without the others."""
NAMES = {"omegaconf": "OmegaConf", "ray": "Ray", "deepspeed": "DeepSpeed", "mlflow": "MLflow"}


def packages(start: bool) -> Iterator[Finding]:
    """Python, torch and what it sees, then the others; ``start``: whether a Ray is started and stopped."""
    own = sys.version_info[:2]
    state: State = "ok" if own >= PYTHON else "missing"
    yield Finding("Python", state, f"{platform.python_version()} at {sys.executable}", "" if own >= PYTHON else "3.11")
    yield _torch()
    yield _package("torchvision")
    yield _ray(start)
    for name in ("deepspeed", "mlflow", "omegaconf"):
        yield _package(name)
    yield compiler()


def version_of(name: str) -> str | None:
    """The version of a package that can be found, without importing it; None where it cannot."""
    try:
        if importlib.util.find_spec(name) is None:
            return None
        return importlib.metadata.version(name)
    except (ImportError, ValueError, AttributeError):
        return None


def _package(name: str, more: str = "") -> Finding:
    subject, version, floor = NAMES.get(name, name), version_of(name), FLOORS[name]
    oldest = ".".join(map(str, floor))
    install = f"pip install '{name}>={oldest}'"
    if version is None:
        without = WITHOUT.get(name)
        state: State = "note" if without else "missing"
        return Finding(subject, state, f"not installed{f': {without}' if without else ''}", install)
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < floor:
        return Finding(subject, "note", f"{version} is older than {oldest}, with which this was tested", install)
    return Finding(subject, "ok", f"{version}{more}")


def _torch() -> Finding:
    known = _package("torch")
    if known.state == "missing":
        return known
    try:
        import torch
    except Exception as error:  # libraries that do not load fail in many ways
        problem = f"{known.text}, but it cannot be imported: {str(error).splitlines()[0] if str(error) else error!r}"
        return Finding("torch", "missing", problem, "install it anew, in a fresh virtual environment")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    if usable:
        each = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        cards = ", ".join(f"{card.name} ({card.total_memory / 2**30:.0f} GiB)" for card in each)
        return Finding("torch", known.state, f"{known.text}; {len(each)} GPU: {cards}", known.to_do)
    return Finding("torch", known.state, f"{known.text}; no GPU: {_why_no_gpu(torch.version.cuda, said)}", known.to_do)


def _why_no_gpu(cuda: str | None, said: list[warnings.WarningMessage]) -> str:
    """Why torch uses none."""
    driver = Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None
    if cuda is None:
        return "this torch was built without CUDA" + (", though a driver is there" if driver else "")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if driver and visible is not None and not visible.strip("- 1"):
        return f"CUDA_VISIBLE_DEVICES={visible!r} hides them"
    if not driver:
        return "no NVIDIA driver on this machine, so everything runs on the CPU"
    if said:
        return str(said[0].message).splitlines()[0]
    return f"the driver does not serve this torch's CUDA {cuda}"


def _ray(start: bool) -> Finding:
    known = _package("ray")
    if known.text.startswith("not installed"):
        return known
    if address := os.environ.get("RAY_ADDRESS"):
        more = f"; RAY_ADDRESS is set: runs go to that cluster, {address.rpartition('@')[2]}"
    else:
        more = "; not started (doctor --start tries)"
    if not start:
        return Finding("Ray", known.state, known.text + more, known.to_do)
    from distributed_dd.backends.ray.trial_start import seconds_to_start

    try:
        seconds = seconds_to_start()
    except Exception as error:  # Ray's own has no better class
        problem = f"{known.text}; does not start: {(str(error) or repr(error)).splitlines()[0]}"
        return Finding("Ray", "note", problem, "look at /tmp/ray/session_latest/logs; or --on clusters/in_process")
    return Finding("Ray", known.state, f"{known.text}; started here in {seconds:.1f} s, and stopped", known.to_do)


def compiler() -> Finding:
    """What ``compile=true`` needs: a C++ compiler, and Python's headers."""
    named = os.environ.get("CXX")
    path = next(filter(None, map(shutil.which, [named] if named else ["g++", "clang++", "c++"])), None)
    if path is None:
        problem = f"{f'CXX={named} is not there' if named else 'no C++ compiler'}: compile=true will fail"
        return Finding("compiler", "note", problem, "install g++")
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return Finding("compiler", "note", f"{path}, but no Python.h: compile=true will fail", "install python3-dev")
    return Finding("compiler", "ok", f"{path}, for compile=true")
