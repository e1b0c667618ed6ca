"""A Ray that is started on this machine is nobody else's, and runs nothing but this package."""

import json
import os
import stat
import subprocess
import sys

import pytest

from tests.conftest import ROOT

HOSTILE = ("safetensors", "torch", "mlflow", "json", "numpy", "deepspeed", "distributed_dd")
SCRIPT = """
import json, psutil
from distributed_dd.backends.deepspeed.engine import DeepSpeedRanks
from distributed_dd.backends.ray.cluster import RayCluster
from distributed_dd.backends.ray.gang import Gang

def listening(process):
    return [place.laddr.ip for place in process.net_connections("inet") if place.status == "LISTEN"]

def own(*_):
    import os, psutil, sys
    return os.getpid(), [place.laddr.ip for place in psutil.Process().net_connections("inet")], sys.path, os.getcwd()

cluster = RayCluster(num_cpus=3)
tasks = [answer for _, answer in cluster.map(own, [0], None)]
gang = Gang(job=None, cluster=cluster, settings=DeepSpeedRanks(num_ranks=2, timeout=300.0), logs=None)
gang.gather()
ranks = gang.call(own)
import ray
session = ray._private.worker._global_node.session_name
started = [p for p in psutil.process_iter() if session in " ".join(p.cmdline()) or p.name().startswith("ray")]
mine = {child.pid for child in psutil.Process().children(recursive=True)} | {psutil.Process().pid}
of_ray = {p.name(): listening(p) for p in started if p.pid in mine}
print(json.dumps({"tasks": tasks, "ranks": ranks, "of_ray": of_ray, "driver": listening(psutil.Process())}))
gang.stop()
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What a local Ray, a task and two ranks showed that were started from a folder of hostile files."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "downloads"
    folder.mkdir()
    for name in HOSTILE:
        (folder / f"{name}.py").write_text(f"open({str(home / 'ran')!r}, 'a').write(__name__ + '\\n')\n")
    (home / "script.py").write_text(SCRIPT)
    unset = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {"HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, str(home / "script.py")]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {"home": home, "folder": folder} | json.loads(done.stdout.splitlines()[-1])


def test_it_listens_on_the_loopback_interface_alone(seen):
    """So do its daemons, its workers, and the ranks that meet over it."""
    places = [*seen["driver"], *(place for listed in seen["of_ray"].values() for place in listed)]
    places += [place for _, listed, *_ in seen["ranks"] for place in listed]
    assert len(places) > 6 and len(seen["of_ray"]) > 3
    assert {place.removeprefix("::ffff:") for place in places} == {"127.0.0.1"}, seen["of_ray"]


def test_its_token_is_for_its_owner_alone(seen):
    token = seen["home"] / ".ray" / "auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600 and len(token.read_text()) == 64


def test_its_workers_import_nothing_from_the_current_folder(seen):
    assert not (seen["home"] / "ran").exists()
    for _, _, path, here in [*seen["tasks"], *seen["ranks"]]:
        assert str(seen["folder"]) not in path and "" not in path
        assert here == str(seen["folder"]), "relative places of a configuration hold in workers too"
