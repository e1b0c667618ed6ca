"""The session on a GPU machine, in its form for a CPU, without Ray, DeepSpeed and MLflow."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

SCRIPT = ROOT / "launch/gpu_session.py"


@pytest.fixture
def bare(tmp_path):
    """An environment in which Ray, DeepSpeed and MLflow cannot be imported."""
    for name in ("ray", "deepspeed", "mlflow"):
        (tmp_path / "bare" / name).mkdir(parents=True)
        (tmp_path / "bare" / name / "__init__.py").write_text(f"raise ImportError('no {name} here')")
    return {**os.environ, "PYTHONPATH": str(tmp_path / "bare")}


def session(environment, *arguments):
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def parts_of(folder):
    return json.loads((folder / "session.json").read_text())["parts"]


def test_parts_are_done_once_and_recorded(bare, tmp_path, tiny_yaml):
    """Time that is up stops a part; the same command does what is missing, and nothing twice."""
    folder = tmp_path / "record"
    arguments = ["--quick", "--to", str(folder), str(tiny_yaml)]
    arguments += [word for part in ("tests", "bench machine", "run") for word in ("--only", part)]
    assert session(bare, "--minutes", "0", *arguments).returncode == 1
    assert [part["status"] for part in parts_of(folder)] == ["stopped"] * 3
    done = session(bare, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    tests, machine, run = parts_of(folder)
    assert (
        ", 0 failed" in tests["result"]["summary"] and "0 passed, 0 failed, 0 skipped" not in tests["result"]["summary"]
    )
    assert all(row["value"] > 0 for row in machine["result"]["rows"])
    assert "| distilled" in run["result"]
    page = (folder / "README.md").read_text()
    assert "matrix product, bf16" in page and "| distilled" in page
    names = ("tests.json", "bench-machine.json", "run.json")
    before = {name: (folder / name).stat().st_mtime_ns for name in names}
    assert session(bare, *arguments).returncode == 0
    assert before == {name: (folder / name).stat().st_mtime_ns for name in names}


def test_a_part_that_fails_says_why_and_the_next_goes_on(bare, tmp_path, tiny_yaml):
    folder = tmp_path / "record"
    only = ["--only", "run", "--only", "bench machine"]
    assert session(bare, "--quick", "--to", str(folder), *only, str(tiny_yaml), "num_outer_stepz=3").returncode == 1
    machine, run = parts_of(folder)
    assert (machine["status"], run["status"], run["code"]) == ("passed", "failed", 2)
    assert "num_outer_stepz" in run["error"] and "num_outer_stepz" in (folder / "README.md").read_text()
    assert session(bare, "--only", "tets").returncode == 2


@pytest.mark.slow
def test_the_whole_session_in_its_form_for_a_cpu(bare, tmp_path):
    """Over ranks there is nothing without Ray: that part fails and says so."""
    folder = tmp_path / "record"
    session(bare, "--quick", "--to", str(folder))
    assert [part["name"] for part in parts_of(folder) if part["status"] != "passed"] == ["bench sharded"]
    assert "ray" in next(part["error"] for part in parts_of(folder) if part["name"] == "bench sharded")
