"""The wheel, installed where no checkout is: configurations by name, and a job."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT

SOURCES = ("distributed_dd", "configs", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with nothing in it but the installed wheel; what it needs comes from this environment."""
    source, there = (tmp_path_factory.mktemp(name) for name in ("source", "there"))
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", str(source), "--no-deps", "-w", str(there)], check=True)
    (wheel,) = there.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(there / "site"), str(wheel)], check=True)
    return there / "site"


def verb(installed, folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "distributed_dd", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


SMALL = ("num_outer_steps=2", "evaluate.every=2", "evaluate.num_epochs=2", "evaluate.num_epochs_full_data=1")
FEW = ("evaluate.num_networks=2", "evaluate.num_validation_networks=1", "evaluate.controls=[]", "tracker=none")


def test_a_job_by_name_in_an_empty_folder(installed, tmp_path):
    done = verb(installed, tmp_path, "run", "digits/dm_ipc1", *SMALL, *FEW, "--on", "clusters/in_process")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "runs").glob("digits-dm-ipc1-*/report.json"))
    shown = verb(installed, tmp_path, "configs", "digits/dm_ipc1").stdout
    assert f"file: {installed}/distributed_dd/configs/digits/dm_ipc1.yaml" in shown and "Cost:" in shown


def test_a_sweep_and_every_configuration_are_there(installed, tmp_path):
    known = {str(path.relative_to(ROOT / "configs")) for path in (ROOT / "configs").rglob("*.yaml")}
    there = installed / "distributed_dd" / "configs"
    assert {str(path.relative_to(there)) for path in there.rglob("*.yaml")} == known
    assert verb(installed, tmp_path, "show", "tune/digits_datm_window").returncode == 0
    assert (installed / "distributed_dd" / "py.typed").exists()
