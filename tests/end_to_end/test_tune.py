"""Sweeps from the command line: real Ray Tune, real MLflow, killed and resumed."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import distributed_dd
from distributed_dd.cli import main
from distributed_dd.sweeps.listening import Clock, StudyListener
from distributed_dd.sweeps.plan import planned
from tests.conftest import ROOT, ray_of_two_cores, tiny_text
from tests.end_to_end.test_chaos import FAST_HEALTH_CHECKS, processes

SWEEP = """
base: tiny.yaml
images_per_class: [1, 2]
num_trials: 5
num_finalists: 2
final_networks: 2
settings: {num_outer_steps: 9, evaluate: {num_epochs: 20}}
search: {kind: random}
space:
  method.segments: {kind: matching_window}
  method.image_optimizer.learning_rate: {kind: log_uniform, low: 0.1, high: 10}
"""


def sweep_in(folder: Path) -> Path:
    """A sweep of two studies of five trials of a second, and what to run it on."""
    (folder / "tiny.yaml").write_text(tiny_text(folder / "runs"))
    path = folder / "sweep.yaml"
    path.write_text(f"output: {folder / 'runs'}\n{SWEEP}")
    (folder / "two.yaml").write_text("kind: ray\nnum_cpus: 2\n")
    return path


@pytest.fixture
def sweep(tmp_path):
    return sweep_in(tmp_path)


def tune(sweep: Path, *overrides: str) -> int:
    ray_of_two_cores()
    return main(["tune", str(sweep), *overrides, "--on", str(sweep.parent / "two.yaml")])


def report_of(sweep: Path) -> dict:
    (path,) = (sweep.parent / "runs" / "sweeps").glob("*/report.json")
    return json.loads(path.read_text())


def tracked(sweep: Path) -> list:
    """All runs of the one experiment."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{sweep.parent / 'runs' / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name.startswith("distributed_dd/")]
    return client.search_runs([experiment.experiment_id])


def test_a_sweep_writes_what_it_found_and_the_same_line_again_does_nothing(sweep, capsys):
    assert tune(sweep, "tracker=mlflow") == 0
    report = report_of(sweep)
    folder = next((sweep.parent / "runs" / "sweeps").iterdir())
    for study in report["studies"]:
        assert len(study["trials"]) == 5 and study["trials"][0]["base"] and study["rungs"] == [1, 3, 9]
        finals = [trial for trial in study["trials"] if trial["final"]]
        best = max(finals, key=lambda trial: sum(trial["final"]))
        assert study["winner"] == best["number"] and 2 <= len(finals) <= 3
        assert study["trials"][0]["status"] == "finished" and study["trials"][0]["final"], "the base is spared"
        for trial in study["trials"]:
            written = folder / "trials" / trial["run"] / "distilled" / "manifest.json"
            assert written.exists() == (trial["status"] == "finished")
        size = study["images_per_class"]
        text = (folder / f"best_ipc{size}.yaml").read_text()
        found = yaml.safe_load(text)
        assert found["images_per_class"] == size and text.startswith(f"# {size} image")
        assert found["method"]["segments"]["max_start_epoch"] == best["settings"]["method.segments.max_start_epoch"]
        assert f"# trial: {best['number']} of 5" in text and "# sweep: sweep-" in text
    assert {"windows.png", "parallel_ipc1.png", "report.md", "log.txt"} <= {p.name for p in folder.iterdir()}
    lines = list(csv.DictReader((folder / "trials.csv").open()))
    assert len(lines) == 10 and sum(int(line["best"]) for line in lines) == 2
    # Tested: the two winners, in ordinary run folders, and nobody else.
    reports = {p.parent for p in (sweep.parent / "runs").rglob("report.json") if "mlartifacts" not in p.parts}
    assert len(reports) == 3 and reports - set((sweep.parent / "runs").glob("digits-*")) == {folder}
    out = capsys.readouterr().out
    assert out.strip().splitlines()[-1].startswith("output: ")

    runs = tracked(sweep)
    (parent,) = [run for run in runs if run.data.tags.get("role") == "sweep"]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(runs) == 1 + len(children) and len(children) == 12, "ten trials and two winners"
    assert {run.info.status for run in runs} == {"FINISHED"}
    trials = [run for run in children if run.data.tags["role"] == "trial"]
    assert {run.data.tags["images_per_class"] for run in trials} == {"1", "2"}
    assert all(run.data.tags["outcome"] in ("finished", "stopped") for run in trials)
    assert all("validation_accuracy" in run.data.metrics for run in trials)
    assert not any("test_accuracy_distilled" in run.data.metrics for run in trials)
    assert set(parent.data.metrics) == {
        f"ipc{size} {name}" for size in (1, 2) for name in ("validation_accuracy", "test_accuracy")
    }

    before = {p: p.stat().st_mtime_ns for p in (sweep.parent / "runs").rglob("*.safetensors")}
    assert tune(sweep, "tracker=mlflow") == 0
    assert before == {p: p.stat().st_mtime_ns for p in (sweep.parent / "runs").rglob("*.safetensors")}
    assert report_of(sweep)["studies"] == report["studies"] and len(tracked(sweep)) == 13
    capsys.readouterr()
    assert main(["run", str(folder / "best_ipc2.yaml"), f"output={sweep.parent / 'runs'}"]) == 0
    assert "already finished" in capsys.readouterr().out, "the file is the configuration that was tested"


def in_a_process(sweep: Path, *overrides: str) -> subprocess.Popen:
    command = [
        sys.executable,
        "-m",
        "distributed_dd",
        "tune",
        str(sweep),
        *overrides,
        "--on",
        str(sweep.parent / "two.yaml"),
    ]
    log = open(sweep.parent / "driver.log", "ab")  # noqa: SIM115 - as long as the process
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def scored(sweep: Path) -> int:
    """Scores that trials have written."""
    paths = (sweep.parent / "runs" / "sweeps").glob("*/trials/*/metrics.jsonl")
    return sum(path.read_text().count("validation_accuracy") for path in paths)


@pytest.mark.timeout(1500)  # three sweeps, on a machine that others may be using too
@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_killed_sweep_loses_no_trial_repeats_none_and_keeps_its_mlflow_runs(sweep, how):
    """Every trial goes to its end, so that what comes out depends on nothing but the seed."""
    settings = (
        "images_per_class=[1]",
        "schedule.kind=to_the_end",
        "schedule.num_rungs=3",
        "tracker=mlflow",
        "test_winner=false",
        "num_trials=4",
    )
    whole = sweep.parent / "whole"
    assert tune(sweep, *settings, f"output={whole}") == 0
    expected = json.loads(next((whole / "sweeps").glob("*/report.json")).read_text())["studies"]
    driver = in_a_process(sweep, *settings)
    deadline = time.monotonic() + 480
    while scored(sweep) < 4:
        log = (sweep.parent / "driver.log").read_text()
        assert driver.poll() is None and time.monotonic() < deadline, log
        time.sleep(0.05)
    os.kill(driver.pid, how)
    assert driver.wait(240) == (-9 if how == signal.SIGKILL else 130)
    known = {run.info.run_id for run in tracked(sweep)}
    assert len(known) >= 2
    assert tune(sweep, *settings) == 0
    (study,) = report_of(sweep)["studies"]
    assert [study] == expected
    runs = tracked(sweep)
    assert known <= {run.info.run_id for run in runs} and len(runs) == 5
    assert {run.info.status for run in runs} == {"FINISHED"}
    names = [run.data.tags["run_folder"] for run in runs if run.data.tags["role"] == "trial"]
    assert len(set(names)) == len(names) == 4
    for path in (sweep.parent / "runs" / "sweeps").glob("*/trials/*/metrics.jsonl"):
        steps = [json.loads(line)["step"] for line in path.read_text().splitlines()]
        assert steps == list(range(1, 10)), "no outer step is missing and none is there twice"


def test_diverged_trials_are_counted_and_the_sweep_goes_on(sweep, capsys):
    """A rate of 1e30 diverges at once; ASHA alone would let such a trial run on."""
    text = sweep.read_text().replace(
        "{kind: log_uniform, low: 0.1, high: 10}", "{kind: choice, values: [0.5, 1.0e+30]}"
    )
    sweep.write_text(text)
    assert tune(sweep, "images_per_class=[1]", "test_winner=false") == 0
    (study,) = report_of(sweep)["studies"]
    ended = [trial["status"] for trial in study["trials"]]
    assert ended.count("diverged") >= 1 and len(ended) == 5
    assert study["trials"][study["winner"]]["status"] == "finished"
    assert "diverged: outer step" in capsys.readouterr().out


def test_a_grid_tries_every_point_once(sweep):
    text = sweep.read_text().replace("low: 0.1, high: 10}", "low: 0.1, high: 10, num_grid: 2}")
    sweep.write_text(text.replace("kind: matching_window", "kind: matching_window, earliest: 2"))
    on = ("images_per_class=[1]", "search.kind=grid", "num_trials=99", "test_winner=false")
    assert tune(sweep, *on) == 0
    (study,) = report_of(sweep)["studies"]
    tried = [tuple(trial["settings"].values()) for trial in study["trials"]]
    assert sorted(tried) == sorted({(s, e, lr) for s, e in ((2, 3), (2, 4), (3, 4)) for lr in (0.1, 10)})


def test_a_population_copies_rates_and_its_own_set_is_tested(sweep):
    text = sweep.read_text().replace("  method.segments: {kind: matching_window}\n", "")
    sweep.write_text(text)
    on = ("images_per_class=[2]", "search.kind=population", "search.num_intervals=3", "num_trials=4")
    assert tune(sweep, *on) == 0
    (study,) = report_of(sweep)["studies"]
    best = study["trials"][study["winner"]]
    folder = next((sweep.parent / "runs" / "sweeps").iterdir())
    run = folder / "trials" / best["run"]
    assert (run / "report.json").exists(), "the member's own set"
    lineages = [json.loads(path.read_text())["members"] for path in folder.glob("trials/*/checkpoint/lineage.json")]
    assert any(len(lineage) > 1 for lineage in lineages), "somebody copied"
    for lineage in lineages:
        rates = [one["settings"]["method.image_optimizer.learning_rate"] for one in lineage]
        assert all(0.1 <= rate <= 10 for rate in rates)
        assert [one["from_step"] for one in lineage] == sorted(one["from_step"] for one in lineage)


def test_a_sweep_whose_tracker_was_away_is_told_later_with_its_trials_below_it(sweep, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////dev/null/mlflow.db")
    assert tune(sweep, "images_per_class=[1]", "num_trials=2", "test_winner=false", "tracker=mlflow") == 0
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert main(["import", str(sweep.parent / "runs")]) == 0
    runs = tracked(sweep)
    (parent,) = [run for run in runs if run.data.tags["role"] == "sweep"]
    assert len(runs) == 3 and {run.info.status for run in runs} == {"FINISHED"}
    assert [run.data.tags.get("mlflow.parentRunId") for run in runs].count(parent.info.run_id) == 2


def test_hours_end_a_sweep_with_what_it_has_and_more_hours_go_on(sweep, monkeypatch, capsys):
    """Time is out after the first score; the same line without the limit makes all trials."""
    on = (
        "images_per_class=[1]",
        "num_trials=3",
        "schedule.kind=to_the_end",
        "schedule.num_rungs=3",
        "settings.num_outer_steps=90",
        "test_winner=false",
    )
    heard: list[int] = []
    real = StudyListener.reported
    with monkeypatch.context() as patched:
        patched.setattr(StudyListener, "reported", lambda self, *given: heard.append(1) or real(self, *given))
        patched.setattr(StudyListener, "out_of_time", lambda self: bool(heard))
        assert tune(sweep, *on) == 0
    (study,) = report_of(sweep)["studies"]
    assert "hours is spent" in capsys.readouterr().out
    assert any(trial["outer_step"] < 90 for trial in study["trials"]) and study["winner"] is not None
    assert tune(sweep, *on) == 0
    (study,) = report_of(sweep)["studies"]
    assert [trial["status"] for trial in study["trials"]] == ["finished"] * 3
    assert study["trials"][0]["base"]
    for path in (sweep.parent / "runs" / "sweeps").glob("*/trials/*/metrics.jsonl"):
        assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == list(range(1, 91))


def test_hours_add_up_over_drivers(tmp_path):
    first = Clock(tmp_path / "elapsed.json", "sweep", 1.0)
    first.before = 3000.0
    first.note()
    second = Clock(tmp_path / "elapsed.json", "sweep", 1.0)
    assert 590 < second.left() <= 600 and Clock(tmp_path / "elapsed.json", "sweep", None).left() is None


THREE = ("images_per_class=[1]", "num_trials=3", "schedule.kind=to_the_end", "test_winner=false")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of three trials that has ended, as which tests leave it, and what was reported."""
    sweep = sweep_in(tmp_path_factory.mktemp("swept"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DISTRIBUTED_DD_CACHE", str(sweep.parent / "cache"))
        assert tune(sweep, *THREE) == 0
    return sweep, report_of(sweep)["studies"]


def test_a_state_that_a_kill_cut_short_is_done_without(swept):
    """Tune writes its state in place: a kill may leave an empty file. The run folders have it all."""
    sweep, expected = swept
    folder = next((sweep.parent / "runs" / "sweeps").iterdir())
    (folder / "ipc1" / "study.json").unlink()
    for state in (folder / "ipc1" / "tune").glob("experiment_state-*.json"):
        state.write_text("")
    before = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/distilled/*.safetensors")}
    assert tune(sweep, *THREE) == 0 and report_of(sweep)["studies"] == expected
    assert before == {path: path.stat().st_mtime_ns for path in before}, "nothing was computed again"


@pytest.mark.parametrize(
    ("overrides", "code", "told"),
    [
        (["num_trials=0"], 2, "num_trials: got 0"),
        (["hours=0"], 2, "hours: got 0"),
        (["space={method.studnt_steps: {kind: integers, low: 1, high: 4}}"], 2, "did you mean 'student_steps'"),
        (["space={method.segments: {kind: matching_window, earliest: 4}}"], 2, "no window"),
        (["space={method.student_steps: {kind: integers, low: 0, high: 4}}"], 2, "student_steps: got 0"),
        (["search.kind=population"], 2, "cannot change in the middle"),
        (["space.method.segments.kind=matching_windw"], 2, "did you mean 'matching_window'"),
        (["space.method.segments.earliest=9"], 2, "space.method.segments.earliest: no window"),
        (["space={seed: {kind: integers, low: 1, high: 4}}"], 2, "decides how trials are compared"),
        (["space={evaluate.num_epochs: {kind: choice, values: [1, 2]}}"], 2, "space.evaluate.num_epochs"),
        (["space={methd.seed: {kind: integers, low: 1, high: 4}}"], 2, "space.methd.seed: unknown key"),
        (["base=missing.yaml"], 3, "missing.yaml: there is no such file"),
        (["settings.evaluate.num_epoch=3"], 2, "did you mean 'num_epochs'"),
        (["settings.images_per_class=3"], 2, "is what studies differ in"),
        (["settings.experts.num_epoch=3"], 2, "experts.num_epoch: unknown key (did you mean 'num_epochs'?)"),
        (["space={experts.save_every: {kind: choice, values: [1, 2]}}"], 2, "space.experts.save_every: decides how"),
        (["space={experts.num_experts: {kind: integers, low: 0, high: 4}}"], 2, "space.experts.num_experts: got 0"),
    ],
)
def test_what_cannot_be_searched_is_one_message_and_nothing_is_started(sweep, capsys, overrides, code, told):
    assert tune(sweep, *overrides) == code
    assert told in capsys.readouterr().err
    assert not (sweep.parent / "runs").exists()


@pytest.mark.parametrize("kind", ["generative_ipc10", "dm_ipc1"])
def test_what_only_experts_have_is_refused_where_there_are_none(sweep, capsys, kind):
    base = f"base={ROOT / 'configs' / 'digits' / kind}.yaml"
    for space, told in (
        ("experts.num_epochs: {kind: integers, low: 1, high: 4}", "space.experts.num_epochs: method.kind="),
        ("method.segments: {kind: matching_window}", "space.method.segments.kind: the base, with method.kind="),
    ):
        sweep.write_text(sweep.read_text().partition("space:")[0] + f"space:\n  {space}\n")
        assert tune(sweep, base, "settings={num_outer_steps: 9}") == 2
        error = capsys.readouterr().err
        assert told in error and ("has no experts" in error or "has no method.segments" in error)
    assert tune(sweep, base, "settings={experts: {num_epochs: 4}}") == 2
    assert "with the sweep's settings: experts: method.kind=" in capsys.readouterr().err


def test_a_sweep_and_a_configuration_are_told_apart(sweep, tiny_yaml, capsys):
    assert main(["tune", str(tiny_yaml)]) == 2
    assert "is no sweep file" in capsys.readouterr().err
    assert main(["run", str(sweep)]) == 2
    assert f"distributed-dd tune {sweep}" in capsys.readouterr().err


def test_a_sweep_needs_ray(sweep, capsys):
    here = str(ROOT / "configs/clusters/in_process.yaml")
    assert main(["tune", str(sweep), "--on", here]) == 2
    assert "Ray Tune" in capsys.readouterr().err


def test_from_python_it_is_the_same_sweep_as_rows_and_files_that_run_takes(swept, capsys):
    sweep, expected = swept
    small = {"images_per_class": [1], "schedule": {"kind": "to_the_end"}}
    on = sweep.parent / "two.yaml"
    tuned = distributed_dd.tune(sweep, on=on, overrides=small, num_trials=3, test_winner=False)
    assert "already searched" in capsys.readouterr().out and report_of(sweep)["studies"] == expected
    assert [row["trial"] for row in tuned.rows] == [0, 1, 2] and sum(row["best"] for row in tuned.rows) == 1
    assert all("method.image_optimizer.learning_rate" in row and "final_mean" in row for row in tuned.rows)
    assert tuned.figures and repr(tuned) == f"TuneResult(3 trials, 1 per class, {tuned.folder})"
    assert yaml.safe_load(tuned.best[1].read_text())["images_per_class"] == 1


def test_state_of_another_user_is_not_unpickled(swept, monkeypatch, capsys):
    sweep, _ = swept
    study = next((sweep.parent / "runs" / "sweeps").glob("*/ipc1/study.json"))
    content = study.read_bytes()
    study.unlink()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert tune(sweep, *THREE) == 5
    assert "belongs to another user" in capsys.readouterr().err
    study.write_bytes(content)


def test_the_shipped_sweeps_can_be_planned():
    for file in sorted((ROOT / "configs" / "tune").glob("*.yaml")):
        plan = planned(file, [])
        for size in plan.bases:
            assert plan.space.located(plan.values(size)) is not None, f"{file}: the base is no trial at {size}"


@pytest.mark.slow
def test_a_killed_trial_and_a_killed_node_change_nothing(sweep, monkeypatch):
    """A trial whose process or node dies goes on elsewhere from its run folder; no trial counts as failed."""
    from ray.cluster_utils import Cluster

    for name, value in FAST_HEALTH_CHECKS.items():
        monkeypatch.setenv(name, value)
    settings = (
        "images_per_class=[1]",
        "schedule.kind=to_the_end",
        "schedule.num_rungs=3",
        "settings.num_outer_steps=600",
        "test_winner=false",
        "settings.checkpoint_every=20",
    )
    whole = sweep.parent / "whole"
    assert tune(sweep, *settings, f"output={whole}") == 0
    expected = json.loads(next((whole / "sweeps").glob("*/report.json")).read_text())["studies"]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    try:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        driver = in_a_process(sweep, *settings)
        for kill, after in (("trial", 1), ("node", 5)):
            deadline = time.monotonic() + 480
            while scored(sweep) < after:
                assert driver.poll() is None and time.monotonic() < deadline, (sweep.parent / "driver.log").read_text()
                time.sleep(0.05)
            if kill == "node":
                cluster.remove_node(nodes.pop(0), allow_graceful=False)
                nodes.append(cluster.add_node(num_cpus=1))
            else:
                raylets = {node.all_processes["raylet"][0].process.pid for node in nodes}
                found = [pid for pid, title, parent in processes() if "ImplicitFunc" in title and parent in raylets]
                os.kill(found[0], signal.SIGKILL)
        assert driver.wait(300) == 0, (sweep.parent / "driver.log").read_text()
    finally:
        cluster.shutdown()
    assert report_of(sweep)["studies"] == expected
    assert all(trial["status"] == "finished" for trial in expected[0]["trials"])


@pytest.mark.slow
def test_a_trial_over_two_ranks_finds_what_one_process_finds(sweep):
    """The cluster file's engine holds for trials too, and trials with ranks do not starve each other."""
    (sweep.parent / "ranks.yaml").write_text(
        "{kind: ray, num_cpus: 2, engine: {kind: deepspeed, num_ranks: 2, zero: {stage: 3}}}"
    )
    settings = ["images_per_class=[1]", "num_trials=2", "schedule.kind=to_the_end", "test_winner=false"]
    assert tune(sweep, *settings, f"output={sweep.parent / 'one'}") == 0
    on = ["--on", str(sweep.parent / "ranks.yaml")]
    assert main(["tune", str(sweep), *settings, f"output={sweep.parent / 'two'}", *on]) == 0
    trials = {
        side: {path.name: path for path in (sweep.parent / side).glob("sweeps/*/trials/*")} for side in ("one", "two")
    }
    assert trials["one"].keys() == trials["two"].keys() and len(trials["one"]) == 2
    for name, there in trials["two"].items():
        alone, shared = (
            load_file(folder / "distilled" / "last_step.safetensors") for folder in (trials["one"][name], there)
        )
        assert torch.allclose(alone["images"], shared["images"], atol=1e-4)
        assert (there / "ranks" / "rank-1.log").exists()
