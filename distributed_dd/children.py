"""Python programs started from here, which import nothing from the folder they happen to start in.

``python -m`` looks into the current folder first: a ``torch.py`` that came with a downloaded archive would run.
Standard library only.
"""

import multiprocessing
import os
import sys
from collections.abc import Sequence
from multiprocessing.context import SpawnContext
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
# Isolated, so nothing is imported from elsewhere before the path is set. The package is this very one, wherever it
# was imported from: its parent folder need not be on the path.
_START = """
import importlib.util, os, runpy, sys
sys.path[:] = {path!r}
os.environ.pop("PYTHONPATH", None)
os.environ.update({environment!r})
spec = importlib.util.spec_from_file_location("distributed_dd", {init!r}, submodule_search_locations=[{package!r}])
sys.modules["distributed_dd"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["distributed_dd"])
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""


def child_python(module: str, arguments: Sequence[str] = ()) -> list[str]:
    """The command for ``python -m module arguments`` without the current folder among the places of modules.

    The child finds what this process finds, less the current folder and that of this process's script; pythons
    that the child starts do likewise.
    """
    start = _START.format(
        path=_search_path(),
        environment=_python_environment(),
        init=str(PACKAGE / "__init__.py"),
        package=str(PACKAGE),
        module=module,
    )
    return [sys.executable, "-I", "-c", start, *arguments]


def spawn_context() -> SpawnContext:
    """Multiprocessing's context of fresh pythons; from here on this process's children start as `child_python`'s."""
    os.environ.pop("PYTHONPATH", None)
    os.environ.update(_python_environment())
    return multiprocessing.get_context("spawn")


def _search_path() -> list[str]:
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    unwanted = {_current_folder(), script and os.path.dirname(os.path.realpath(script))}
    return [place for place in sys.path if os.path.isabs(place) and os.path.realpath(place) not in unwanted]


def _python_environment() -> dict[str, str]:
    """PYTHONSAFEPATH, and PYTHONPATH without the current folder, where anything else is in it."""
    # Where this package was imported from is trusted already, and its own children need it.
    unwanted = {_current_folder()} - {str(PACKAGE.parent)}
    places = [
        place
        for place in os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if os.path.isabs(place) and os.path.realpath(place) not in unwanted
    ]
    return {"PYTHONSAFEPATH": "1", **({"PYTHONPATH": os.pathsep.join(places)} if places else {})}


def _current_folder() -> str | None:
    try:
        return os.path.realpath(os.getcwd())
    except FileNotFoundError:  # it was deleted: nothing can lie in it
        return None
