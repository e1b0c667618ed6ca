"""A run that is killed at any of its writes ends, begun again, as one that never was."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from distributed_dd.durable import sha256_of
from tests.conftest import ROOT, tiny_gan_text
from tests.references.killed import MOMENTS

HERE = ["--on", str(ROOT / "configs/clusters/in_process.yaml")]
NUM_STEPS = 160
SMALL = ["evaluate.num_networks=2", "num_outer_steps=4", "checkpoint_every=2", "evaluate.every=2"]


def done(arguments, folder, plans):
    """What `killed` tells of each plan; an undisturbed run comes first."""
    folder.mkdir()
    asked = {"arguments": [*arguments, *HERE], "folder": str(folder), "plans": [[], *plans]}
    command = [sys.executable, "-m", "tests.references.killed", json.dumps(asked)]
    ended = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def result_of(output):
    """Bytes of what was distilled, scores, and the measurements of every outer step."""
    (run,) = Path(output).glob("digits-*-????????")
    tensors = {path.name: sha256_of(path) for path in run.glob("*/*.safetensors")}
    rows = [(row["name"], row.get("accuracy_mean")) for row in json.loads((run / "report.json").read_text())["rows"]]
    return tensors, rows, (run / "metrics.jsonl").read_text()


def check(told):
    calm, *killed = told
    wanted = result_of(calm["output"])
    for one in killed:
        assert one["codes"][-1] == 0, one["said"]
        assert result_of(one["output"]) == wanted, one


def test_a_run_killed_at_some_of_its_writes(tiny_yaml, tmp_path):
    """Kills one after the other, each of what the one before left, at writes further and further on."""
    rng = random.Random(3)
    plan = [(write, rng.choice(MOMENTS)) for write in (2, 9, 14)]
    told = done(["run", str(tiny_yaml), *SMALL], tmp_path / "outputs", [plan])
    assert told[0]["writes"] > 30 and told[1]["codes"][:-1] == [-9] * 3, told[1]["said"]
    check(told)


def test_a_generators_run_killed_while_its_gan_is_trained_and_in_a_judges_turn(tmp_path):
    (tmp_path / "tiny_gan.yaml").write_text(tiny_gan_text(tmp_path / "runs"))
    arguments = ["run", str(tmp_path / "tiny_gan.yaml"), "evaluate.num_networks=1"]
    told = done(arguments, tmp_path / "outputs", [[(14, "half"), (28, "after")]])
    assert told[1]["codes"] == [-9, -9, 0], told[1]["said"]
    for place in ("GAN: going on from update 2 of 4", "distil: going on from outer step 2 of 6"):
        assert place in told[1]["said"], told[1]["said"]
    check(told)
    gans = [next(Path(one["output"]).glob("gans/*/metrics.jsonl")).read_text() for one in told]
    assert gans[0] == gans[1]


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_killed_at_each_of_its_writes(tiny_yaml, tmp_path, moment):
    arguments = ["run", str(tiny_yaml), *SMALL]
    (calm,) = done(arguments, tmp_path / "calm", [])
    plans = [[(write, moment)] for write in range(1, calm["writes"] + 1)]
    told = done(arguments, tmp_path / "outputs", plans)
    assert [one["codes"][0] for one in told[1:]] == [-9] * len(plans)
    check(told)
    print(f"{moment}: {len(plans)} writes")


@pytest.mark.slow
def test_twenty_kills_leave_no_gap_in_mlflow(tiny_yaml, tmp_path):
    """Every outer step is told once, with the value that the run's own file has, and nothing is left running."""
    from mlflow import MlflowClient

    rng = random.Random(7)
    more = ["tracker=mlflow", f"num_outer_steps={NUM_STEPS}", "checkpoint_every=2", "evaluate.every=80"]
    plan = [(rng.randrange(14, 28), rng.choice(MOMENTS)) for _ in range(20)]
    told = done(["run", str(tiny_yaml), *more], tmp_path / "outputs", [plan])
    assert told[1]["codes"] == [-9] * 20 + [0], told[1]["said"]
    check(told)
    output = Path(told[1]["output"])
    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert {run.info.status for run in runs} == {"FINISHED"}
    (run,) = [run for run in runs if run.data.tags["role"] == "run"]
    (file,) = output.glob("digits-*/metrics.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, NUM_STEPS + 1))
    for name in {name for line in lines for name in line} - {"step"}:
        wanted = [(line["step"], line[name]) for line in lines if name in line]
        history = sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, name))
        assert [step for step, _ in history] == [step for step, _ in wanted], name
        assert [value for _, value in history] == pytest.approx([value for _, value in wanted], rel=1e-5), name
