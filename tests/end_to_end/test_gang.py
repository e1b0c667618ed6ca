"""Ranks from the command line: the same set as one process, through deaths of ranks and of the driver."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
from safetensors.torch import load_file

from distributed_dd.cli import main
from tests.end_to_end.test_run import HERE, run_folder, sha_of_set

LONG = ["num_outer_steps=80", "evaluate.every=40", "checkpoint_every=5", "method.gate=null"]
FACTS = """
kind: ray
num_cpus: 2
engine: {kind: deepspeed, num_ranks: 2, zero: {stage: 3}}
"""


@pytest.fixture
def two_ranks(tmp_path):
    path = tmp_path / "two_ranks.yaml"
    path.write_text(FACTS)
    return ["--on", str(path)]


def ranks_of(driver):
    """The processes of the ranks that a driver started."""
    found = []
    for process in psutil.Process(driver.pid).children(recursive=True):
        try:
            if process.name().startswith("ray::Rank"):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return sorted(found, key=lambda process: process.pid)


def checkpoint(tiny):
    try:
        return json.loads(next((tiny.parent / "runs").glob("digits-*/checkpoint/latest.json")).read_text())
    except (StopIteration, FileNotFoundError):
        return {"step": -1}


def started(tiny, on, reach):
    """A run in a process of its own that has come so far."""
    command = [sys.executable, "-m", "distributed_dd", "distill", str(tiny), *LONG, *on]
    driver = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 540
    while checkpoint(tiny)["step"] < reach:
        assert driver.poll() is None and time.monotonic() < deadline, driver.communicate()[0]
        time.sleep(0.01)
    return driver


def test_two_ranks_make_the_set_of_one_process(two_cores, tiny_yaml, two_ranks, tmp_path):
    alone, shared = (tmp_path / name / "tiny.yaml" for name in ("alone", "shared"))
    for path in (alone, shared):
        path.parent.mkdir()
        path.write_text(tiny_yaml.read_text().replace(str(tmp_path / "runs"), str(path.parent / "runs")))
    assert main(["distill", str(alone), *HERE]) == 0
    assert main(["distill", str(shared), *two_ranks]) == 0
    one, two = (load_file(run_folder(path) / "distilled" / "last_step.safetensors") for path in (alone, shared))
    for name, value in one.items():
        assert torch.allclose(two[name], value, rtol=1e-3, atol=1e-4), name
    manifest = json.loads((run_folder(shared) / "distilled" / "manifest.json").read_text())
    assert manifest["distillation"]["engine"]["num_ranks"] == 2
    assert "keeps rows 5 to 9 of 10" in (run_folder(shared) / "ranks" / "rank-1.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("victims", [["driver"], ["rank", "driver"]], ids="-".join)
def test_through_a_dead_rank_and_a_dead_driver_the_set_is_the_same(two_cores, tiny_yaml, two_ranks, tmp_path, victims):
    """One process, two ranks undisturbed, two ranks killed: equal to rounding, and to the bit."""
    alone, calm, killed = (tmp_path / name / "tiny.yaml" for name in ("alone", "calm", "killed"))
    for path in (alone, calm, killed):
        path.parent.mkdir()
        path.write_text(tiny_yaml.read_text().replace(str(tmp_path / "runs"), str(path.parent / "runs")))
    assert main(["distill", str(alone), *LONG, *HERE]) == 0
    assert main(["distill", str(calm), *LONG, *two_ranks]) == 0

    driver = started(killed, two_ranks, reach=10)
    ranks = ranks_of(driver)
    assert len(ranks) == 2
    if "rank" in victims:
        ranks[1].kill()
        deadline = time.monotonic() + 480
        while checkpoint(killed)["step"] < 30:
            assert driver.poll() is None and time.monotonic() < deadline, driver.communicate()[0]
            time.sleep(0.01)
        ranks = ranks_of(driver)
        log = (run_folder(killed) / "log.txt").read_text()
        assert re.search("rank [01] died", log) and "going on from outer step" in log
    os.kill(driver.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(ranks, timeout=60)
    assert not alive, "ranks outlived their driver"
    assert checkpoint(killed)["step"] < 80
    assert main(["distill", str(killed), *LONG, *two_ranks]) == 0

    assert sha_of_set(run_folder(killed)) == sha_of_set(run_folder(calm))
    one, two = (load_file(run_folder(path) / "distilled" / "last_step.safetensors") for path in (alone, calm))
    for name, value in one.items():
        assert torch.allclose(two[name], value, rtol=1e-3, atol=1e-4), name
    folder = run_folder(killed)
    logs = {path.name: path.read_text() for path in (folder / "ranks").iterdir()}
    assert sorted(logs) == ["rank-0.log", "rank-1.log"]
    assert "keeps rows 5 to 9 of 10" in logs["rank-1.log"]
    assert logs["rank-1.log"].count("rank 1 of 2") == 1 + len(victims)
    manifest = json.loads((folder / "distilled" / "manifest.json").read_text())
    assert manifest["distillation"]["engine"]["num_ranks"] == 2
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 81))


@pytest.mark.slow
def test_a_node_that_goes_takes_the_ranks_down_and_another_node_brings_them_back(tiny_yaml, tmp_path):
    """Two raylets with a core each; one dies with its rank, and the gang waits for another."""
    from ray.cluster_utils import Cluster

    on = tmp_path / "two_nodes.yaml"
    on.write_text("{kind: ray, wait_for_nodes: 120, engine: {kind: deepspeed, num_ranks: 2, zero: {stage: 3}}}")
    calm, killed = (tmp_path / name / "tiny.yaml" for name in ("calm", "killed"))
    for path in (calm, killed):
        path.parent.mkdir()
        path.write_text(tiny_yaml.read_text().replace(str(tmp_path / "runs"), str(path.parent / "runs")))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        environment = {**os.environ, "RAY_ADDRESS": cluster.address}
        command = [sys.executable, "-m", "distributed_dd", "distill"]
        done = subprocess.run([*command, str(calm), *LONG, "--on", str(on)], env=environment, timeout=300)
        assert done.returncode == 0
        driver = subprocess.Popen([*command, str(killed), *LONG, "--on", str(on)], env=environment)
        deadline = time.monotonic() + 540
        while checkpoint(killed)["step"] < 10:
            assert driver.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        cluster.remove_node(nodes[1], allow_graceful=False)
        cluster.add_node(num_cpus=1)
        assert driver.wait(timeout=300) == 0
    finally:
        cluster.shutdown()
    assert "died" in (run_folder(killed) / "log.txt").read_text()
    assert sha_of_set(run_folder(killed)) == sha_of_set(run_folder(calm))


ENGINE = {"kind": "deepspeed", "num_ranks": 2}


@pytest.mark.parametrize(
    ("engine", "overrides", "where", "says"),
    [
        ({"num_ranks": 11}, [], "engine.num_ranks", "at most 10 ranks"),
        ({"num_ranks": 4}, ["method.batch_size=8"], "engine.num_ranks", "the smallest has 2"),
        ({"split": "segments"}, [], "engine.split", "segments_per_outer_step=2"),
        ({"split": "grid"}, [], "engine.num_groups", "missing"),
        ({"split": "grid", "num_groups": 3}, [], "engine.num_groups", "a divisor of num_ranks = 2"),
        ({"num_groups": 2}, [], "engine.num_groups", "null otherwise"),
        ({"zero": {"stage": 4}}, [], "engine.zero.stage", "0, 1, 2, 3"),
        ({"zero": {"offload": "all", "stage": 2}}, [], "engine.zero.offload", "with stage 3"),
        ({"zero": {"own_rows": True, "stage": 3}}, [], "engine.zero.own_rows", "stage 0"),
        ({"zero": {"own_rows": True, "offload": "all"}}, [], "engine.zero.offload", "stage 3 with offload"),
        ({}, ["method.unroll.kind=direct"], "method.unroll", "replayed"),
        ({}, ["network={kind: convnet, depth: 2, width: 4, norm: batch}"], "network layer", "running stat"),
        ({"gpus_per_rank": 2}, [], "engine.gpus_per_rank", "one GPU"),
        ({"num_rank": 2}, [], "engine.num_rank", "did you mean 'num_ranks'"),
    ],
)
def test_what_cannot_be_divided_is_refused_before_ranks_start(
    tiny_yaml, tmp_path, capsys, engine, overrides, where, says
):
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps({"kind": "ray", "engine": {**ENGINE, **engine}}))
    started_at = time.monotonic()
    assert main(["run", str(tiny_yaml), *overrides, "--on", str(path)]) == 2
    error = capsys.readouterr().err
    assert where in error and says in error
    assert not (tmp_path / "runs").exists() and time.monotonic() - started_at < 60


def test_more_ranks_than_the_cluster_has_room_for(two_cores, tiny_yaml, tmp_path, capsys):
    path = tmp_path / "cluster.yaml"
    path.write_text("{kind: ray, num_cpus: 2, engine: {kind: deepspeed, num_ranks: 3}}")
    assert main(["distill", str(tiny_yaml), "--on", str(path)]) == 2
    error = capsys.readouterr().err
    assert "3 ranks want 3 CPU" in error and "has 2 CPU" in error
    assert not (tmp_path / "runs").exists(), "refused before the experts, which may take days"


def test_ranks_need_ray(tiny_yaml, tmp_path, capsys):
    path = tmp_path / "cluster.yaml"
    path.write_text("{kind: in_process, engine: {kind: deepspeed, num_ranks: 2}}")
    assert main(["run", str(tiny_yaml), "--on", str(path)]) == 2
    assert "kind: ray" in capsys.readouterr().err


def test_show_tells_what_a_rank_of_the_cluster_file_would_hold(tiny_yaml, two_ranks, capsys):
    assert main(["show", str(tiny_yaml), *two_ranks]) == 0
    assert "each of 2 ranks, split student_batch, ZeRO 3: " in capsys.readouterr().out


def test_a_shard_that_is_damaged_or_gone_is_named_before_ranks_start(tiny_yaml, two_ranks, capsys):
    assert main(["distill", str(tiny_yaml), *HERE]) == 0
    folder = run_folder(tiny_yaml)
    (folder / "distilled" / "manifest.json").unlink()
    shard = folder / "checkpoint" / checkpoint(tiny_yaml)["newest"][0]["file"]
    (folder / "checkpoint" / "previous.json").unlink()
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert main(["distill", str(tiny_yaml), *two_ranks]) == 5
    assert shard.name in capsys.readouterr().err
    shard.unlink()
    assert main(["distill", str(tiny_yaml), *two_ranks]) == 5
    assert "missing" in capsys.readouterr().err
