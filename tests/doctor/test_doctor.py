"""`doctor` tells what a run would stumble over, and stumbles over none of it itself."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections import namedtuple
from pathlib import Path

import pytest

from distributed_dd.cli import main
from distributed_dd.doctor import machine, packages
from tests.conftest import ROOT

SUBJECTS = [
    *("Python", "torch", "torchvision", "Ray", "DeepSpeed", "MLflow", "OmegaConf", "compiler"),
    *("output", "temp folder", "shared memory", "cores", "data cache"),
]
Usage = namedtuple("Usage", "total used free")


def findings(text: str) -> dict[str, str]:
    """Subject -> its line."""
    lines = text.splitlines()
    assert all(re.match(r"(ok|note|missing) ", line) for line in lines)
    return {subject: line for line in lines for subject in SUBJECTS if line[9:].startswith(f"{subject:<15}")}


def test_there_is_a_line_for_everything(capsys, tmp_path):
    assert main(["doctor", "--output", str(tmp_path / "runs")]) == 0
    lines = findings(capsys.readouterr().out)
    assert list(lines) == SUBJECTS
    assert "GiB free" in lines["output"] and not (tmp_path / "runs").exists()
    assert "GPU" in lines["torch"] and "not started" in lines["Ray"]


def test_it_works_without_the_platforms_and_loads_nothing_slow():
    code = (
        "import sys\n"
        "for name in ('ray', 'deepspeed', 'mlflow'): sys.modules[name] = None\n"
        "from distributed_dd.cli import main\n"
        "code = main(['doctor', '--start'])\n"
        "slow = ('torchvision', 'torch._dynamo', 'omegaconf', 'sklearn', 'matplotlib', 'distributed_dd.data')\n"
        "print(code, [name for name in slow if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *lines, end = done.stdout.splitlines()
    found = findings("\n".join(lines))
    assert end == "0 []"
    assert found["Ray"].startswith("note") and "--on clusters/in_process" in found["Ray"]
    assert found["DeepSpeed"].startswith("note") and found["MLflow"].startswith("note")
    assert "pip install 'mlflow>=3.10'" in found["MLflow"]


def test_what_the_program_needs_decides_the_exit_code(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "omegaconf", None)
    assert main(["doctor"]) == 3
    said = capsys.readouterr()
    assert findings(said.out)["OmegaConf"].startswith("missing") and "OmegaConf" in said.err


def test_an_old_package_is_named(monkeypatch, capsys):
    monkeypatch.setattr(packages, "version_of", lambda name: "2.3.1" if name == "ray" else "99.0")
    assert main(["doctor"]) == 0
    line = findings(capsys.readouterr().out)["Ray"]
    assert line.startswith("note") and "2.3.1 is older than 2.59" in line


def test_the_oldest_versions_are_those_of_the_package():
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    floors = dict(re.match(r"([\w-]+)(?:\[.*\])?>=([\d.]+)", line).groups() for line in known["dependencies"])
    assert {name: ".".join(map(str, floor)) for name, floor in packages.FLOORS.items()} == {
        name: floors[name] for name in packages.FLOORS
    }
    assert known["requires-python"] == ">=" + ".".join(map(str, packages.PYTHON))


@pytest.mark.parametrize(
    ("free", "state", "said"),
    [(100, "ok", "100.0 GiB"), (1, "note", "soon fill"), (30, "note", "more than 95% are used")],
)
def test_a_disk_with_little_room_is_noted(free, state, said, monkeypatch, tmp_path):
    usage = Usage(1000 * 2**30, 0, free * 2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    finding = next(iter(machine.machine(tmp_path / "not" / "there")))
    assert (finding.subject, finding.state) == ("output", state) and said in finding.text


def test_little_shared_memory_is_noted(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**26, 0, 2**26))
    assert "--shm-size" in machine._shared_memory().to_do


@pytest.mark.parametrize(
    ("own", "file", "content", "quota"),
    [
        ("0::/box/inner", "box/cpu.max", "150000 100000\n", 1.5),
        ("0::/box/inner", "box/inner/cpu.max", "max 100000\n", None),
        ("4:memory:/\n3:cpu,cpuacct:/box", "cpu/box/cpu.cfs_quota_us", "200000", 2.0),
        ("3:cpu,cpuacct:/box", "cpu/box/cpu.cfs_quota_us", "-1", None),
        ("garbage", "cpu.max", "100000 100000", None),
    ],
)
def test_the_time_that_a_container_has_is_read(own, file, content, quota, tmp_path):
    place = tmp_path / "groups" / file
    place.parent.mkdir(parents=True)
    place.write_text(content)
    place.with_name("cpu.cfs_period_us").write_text("100000")
    (tmp_path / "own").write_text(own)
    assert machine.quota_of(tmp_path / "groups", tmp_path / "own") == quota


def test_a_container_with_less_time_than_cores_is_told_to_use_fewer_threads(monkeypatch):
    monkeypatch.setattr(machine, "quota_of", lambda groups, own: 0.5)
    monkeypatch.delenv("OMP_NUM_THREADS")
    finding = machine._cores()
    assert finding.state == "note" and finding.to_do == "export OMP_NUM_THREADS=1"


def test_without_a_compiler_it_says_so(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert packages.compiler().state == "note"


def test_the_ray_that_is_tried_is_stopped(monkeypatch, capsys):
    from distributed_dd.backends.ray import trial_start

    monkeypatch.setattr(trial_start, "seconds_to_start", lambda: 2.5)
    assert main(["doctor", "--start"]) == 0
    assert "started here in 2.5 s, and stopped" in findings(capsys.readouterr().out)["Ray"]

    def fails():
        raise RuntimeError("no ports left\nmore")

    monkeypatch.setattr(trial_start, "seconds_to_start", fails)
    assert main(["doctor", "--start"]) == 0
    assert "does not start: no ports left;" in findings(capsys.readouterr().out)["Ray"]


def test_an_address_shows_no_password(monkeypatch, capsys):
    monkeypatch.setenv("RAY_ADDRESS", "ray://user:sesame@head:10001")
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "head:10001" in out and "sesame" not in out


def test_places_are_those_that_runs_use(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("DISTRIBUTED_DD_CACHE", str(tmp_path / "kept"))
    assert main(["doctor"]) == 0
    assert str(Path(tmp_path / "kept")) in findings(capsys.readouterr().out)["data cache"]
