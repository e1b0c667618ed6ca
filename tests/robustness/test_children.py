"""What lies in the current folder is never run by a python that is started from here."""

import json
import subprocess
import sys

import pytest

from distributed_dd.children import child_python
from tests.conftest import ROOT

HOSTILE = (
    "safetensors",
    "torch",
    "mlflow",
    "json",
    "sitecustomize",
    "usercustomize",
    "runpy",
    "numpy",
    "distributed_dd",
)
OF_PYTHON = ("sitecustomize", "usercustomize")
"""Where there are none of these, there need be none."""
SPAWN = """
from distributed_dd.children import spawn_context
if __name__ == "__main__":
    process = spawn_context().Process(target=print, args=("here",))
    process.start(); process.join(); raise SystemExit(process.exitcode)
"""


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """A folder of files that each say so when they are run; it is the current one."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    for name in HOSTILE:
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write(__name__ + '\\n')\n")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("path", [None, "", ".", f".:{ROOT}", "HERE", "HERE:.:"])
def test_a_child_imports_nothing_from_the_current_folder(downloads, tmp_path, monkeypatch, path):
    if path is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONPATH", path.replace("HERE", str(downloads)))
    monkeypatch.setattr(sys, "path", ["", ".", str(downloads), *sys.path])
    code = "import json, distributed_dd.errors"
    grandchild = f"import subprocess; subprocess.run([sys.executable, '-c', {code!r}]);"
    # Once for real; torch takes seconds, and where a module would come from is known without running it.
    large = "safetensors.torch, mlflow.version" if path == "HERE:.:" else "importlib"
    places = f"[importlib.util.find_spec(name).origin for name in {HOSTILE} if name not in {OF_PYTHON}]"
    (tmp_path / "libraries").mkdir()
    (tmp_path / "libraries" / "asked.py").write_text(
        f"import importlib.util, json, sys, {large}, distributed_dd.errors\n"
        f"{grandchild} print(json.dumps([sys.argv[1:], distributed_dd.__file__, {places}]))\n"
    )
    sys.path.append(str(tmp_path / "libraries"))
    done = subprocess.run(child_python("asked", ["a b", "-c"]), capture_output=True, text=True)
    assert done.stdout, done.stderr
    arguments, package, origins = json.loads(done.stdout)
    assert (arguments, package) == (["a b", "-c"], str(ROOT / "distributed_dd" / "__init__.py"))
    assert len(origins) == 7 and not [origin for origin in origins if origin.startswith(str(downloads))]
    assert not (tmp_path / "ran").exists()


def test_a_spawned_process_imports_nothing_from_the_current_folder(downloads, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    script = tmp_path / "script" / "mine.py"
    script.parent.mkdir()
    script.write_text(SPAWN)
    done = subprocess.run([sys.executable, "-P", str(script)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "here\n"), done.stderr
    assert not (tmp_path / "ran").exists()
