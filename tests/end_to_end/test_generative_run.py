"""Generative distillation from the command line, on an experiment of seconds."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

import distributed_dd
from distributed_dd.cli import main
from distributed_dd.durable import sha256_of
from distributed_dd.errors import IntegrityError, MissingInputError
from tests.conftest import ROOT, tiny_gan_text
from tests.references.tables import unpadded
from tests.test_experiment import OLD_EXPERTS

HERE = ["--on", str(ROOT / "configs/clusters/in_process.yaml")]
ROWS = ["generated_fresh", "generated_fresh_last_step", "distilled", "random_real", "full_data"]


@pytest.fixture
def tiny_gan(tmp_path):
    path = tmp_path / "tiny_gan.yaml"
    path.write_text(tiny_gan_text(tmp_path / "runs"))
    return path


def folder_of(tiny, output="runs"):
    (folder,) = (tiny.parent / output).glob("digits-*-????????")
    return folder


def weights(folder):
    return sha256_of(folder / "generator" / "generator.safetensors")


def test_a_run_writes_generator_sample_and_both_protocols(tiny_gan, capsys):
    # Step 3 is scored before the last one, so that best and last may differ.
    assert main(["run", str(tiny_gan), "seed=1", *HERE]) == 0
    out, folder = capsys.readouterr().out, folder_of(tiny_gan)
    assert out.strip().splitlines()[-1] == f"output:   {folder}"
    report = json.loads((folder / "report.json").read_text())
    rows = {row["name"]: row for row in report["rows"]}
    best_is_last = report["best_step"] == 6
    assert list(rows) == [name for name in ROWS if not (best_is_last and name.endswith("last_step"))]
    assert rows["generated_fresh"]["protocol"] == "fresh" and rows["distilled"]["protocol"] == "frozen"
    assert rows["generated_fresh"]["num_images_seen"] == 3 * rows["distilled"]["num_images_seen"] == 3 * 20
    assert set(report["seconds"]) == {"gan", "distill", "evaluate"} and report["chosen_by"] == "fresh"
    generator, sample = distributed_dd.load_generator(folder), distributed_dd.load_distilled(folder)
    assert report["storage_bytes"] == {"generator": generator.num_bytes, "set": sample.images.nbytes}
    page = (folder / "report.md").read_text()
    assert "fresh noise in every epoch" in page and "one frozen sample" in page and "Storage" in page
    assert torch.equal(generator.sample(2, 1).images, sample.images), "the sample repeats from its seed"
    assert sample.manifest["sampled"]["generator_sha256"] == generator.manifest["sha256"]["generator.safetensors"]
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    assert main(["run", str(tiny_gan), "seed=1", *HERE]) == 0
    assert "already finished" in capsys.readouterr().out
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_dim_and_the_gan_share_its_training_and_stand_in_one_table(tiny_gan, capsys):
    """One GAN for three methods; `report` puts fresh and frozen side by side."""
    for name, weight in {"generative": [], "dim": ["local"], "cgan": ["local", "global"]}.items():
        zero = [f"method.{which}_weight=0" for which in weight]
        assert main(["run", str(tiny_gan), f"method.name={name}", *zero, *HERE]) == 0
    assert len(list((tiny_gan.parent / "runs" / "gans").iterdir())) == 1
    assert capsys.readouterr().out.count("GAN: already in") == 2
    assert main(["report", str(tiny_gan.parent / "runs")]) == 0
    page = (tiny_gan.parent / "runs" / "comparison" / "report.md").read_text()
    header, _, *lines = page.splitlines()
    assert unpadded(header).startswith("| run | fresh noise | distilled, frozen |")
    assert [unpadded(line).split(" | ")[0] for line in lines[:3]] == [
        f"| digits ipc2 {name}" for name in ("cgan", "dim", "generative")
    ]
    assert "one frozen sample" in page and "![generator_global.png]" in page
    reports = [json.loads(f.read_text()) for f in (tiny_gan.parent / "runs").glob("digits-*/report.json")]
    assert len({r["seconds"]["gan"] for r in reports}) == 1 and reports[0]["seconds"]["gan"] > 0
    thetas = {weights(folder) for folder in (tiny_gan.parent / "runs").glob("digits-*")}
    assert len(thetas) == 3


def test_sets_of_any_size_are_sampled_and_evaluated(tiny_gan, capsys):
    assert main(["run", str(tiny_gan), *HERE]) == 0
    run = folder_of(tiny_gan)
    assert main(["sample", str(run), "images_per_class=5", "seed=3"]) == 0
    made = run / "samples" / "ipc5-seed3"
    distilled = distributed_dd.load_distilled(made)
    assert torch.bincount(distilled.targets).tolist() == [5] * 10 and (made / "preview.png").exists()
    assert distilled.manifest["sampled"]["seed"] == 3 and distilled.manifest["images_per_class"] == 5
    image, label = distilled[0]
    assert image.shape == (1, 8, 8) and float(label[0]) == pytest.approx(1)
    assert main(["sample", str(run / "generator"), "images_per_class=5", "seed=3"]) == 0
    assert "nothing was done again" in capsys.readouterr().out
    small = ["num_networks=1", "full_data=false", "controls=[herding]"]
    assert main(["evaluate", str(made), *small, "no_augmentation=false", *HERE]) == 0
    assert (made / "cross_architecture.md").exists()
    assert main(["evaluate", str(run), *small, "images_per_class=[1,3]", *HERE]) == 0
    result = json.loads((run / "generator_evaluation.json").read_text())
    found = [(e["images_per_class"], [row["name"] for row in e["rows"]]) for e in result["entries"]]
    assert found == [(n, ["generated_fresh", "distilled", "random_real", "herding"]) for n in (1, 3)]
    capsys.readouterr()
    assert main(["evaluate", str(run), *small, "images_per_class=200", *HERE]) == 0, "more than there are"
    entry = json.loads((run / "generator_evaluation.json").read_text())["entries"][-1]
    assert [row["name"] for row in entry["rows"]] == ["generated_fresh", "distilled"]
    assert main(["sample", str(run), "images_per_class=6", "--to", str(made)]) == 2
    assert main(["sample", str(run), "images_per_class=6", "--to", str(run)]) == 2
    assert "another set" in (said := capsys.readouterr().err) and "other files" in said
    other = "networks=[{kind: mlp, depth: 2, width: 8}]"
    assert main(["evaluate", str(run), *small, "images_per_class=[1,3]", "controls=[herding]", *HERE]) == 0
    assert main(["evaluate", str(run), *small, "images_per_class=3", other, *HERE]) == 0
    assert "3 per class: already evaluated" in capsys.readouterr().out
    page = (run / "generator_evaluation.md").read_text()
    assert unpadded(page.splitlines()[2]).startswith("| per class | trained on | convnet") and "| mlp" in page
    assert main(["export", str(made), "--as", "npz", "--to", str(run / "npz")]) == 0


@pytest.mark.slow
def test_killed_and_resumed_ends_with_the_same_generator(tiny_gan, tmp_path):
    """SIGKILL while the GAN is trained, and in the middle of a judge's turn; the pool is trained by Ray."""
    slow = [
        "num_outer_steps=120",
        "method.gan.num_steps=120",
        "evaluate.every=60",
        "checkpoint_every=10",
        "method.pool.steps_per_network=35",
    ]
    assert main(["run", str(tiny_gan), *slow, f"output={tmp_path / 'whole'}", *HERE]) == 0
    command = [sys.executable, "-m", "distributed_dd", "run", str(tiny_gan), *slow, *HERE]

    def lines(pattern):
        files = list((tmp_path / "runs").glob(pattern))
        return len(files[0].read_text().splitlines()) if files else 0

    for pattern in ("gans/*/metrics.jsonl", "digits-*/metrics.jsonl"):
        process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 480
        while lines(pattern) < 25 and time.monotonic() < deadline:
            time.sleep(0.002)
        assert process.poll() is None, "finished before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert main(["run", str(tiny_gan), *slow, *HERE]) == 0
    whole, resumed = folder_of(tiny_gan, "whole"), folder_of(tiny_gan)
    assert weights(whole) == weights(resumed)
    for name in ("metrics.jsonl", "distilled/distilled.safetensors"):
        assert sha256_of(whole / name) == sha256_of(resumed / name), name
    gans = [next((tmp_path / place / "gans").iterdir()) / "metrics.jsonl" for place in ("whole", "runs")]
    assert gans[0].read_text() == gans[1].read_text()


def test_what_ray_trains_ahead_is_what_one_process_trains(two_cores, tiny_gan, tmp_path):
    """The pool in tasks of its own, the GAN and the generator over two ranks, or all of it here."""
    cluster = tmp_path / "ray.yaml"
    cluster.write_text("{kind: ray, num_cpus: 2}")
    ranks = tmp_path / "ranks.yaml"
    engine = {"kind": "deepspeed", "num_ranks": 2, "zero": {"stage": 2}}
    ranks.write_text(yaml.safe_dump({"kind": "ray", "num_cpus": 2, "engine": engine}))
    found = {}
    for name, on in {"here": HERE[1], "ray": cluster, "ranks": ranks}.items():
        assert main(["distill", str(tiny_gan), f"output={tmp_path / name}", "--on", str(on)]) == 0
        folder = folder_of(tiny_gan, name)
        found[name] = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        if name == "ray":
            assert weights(folder) == weights(folder_of(tiny_gan, "here"))
    log = (folder_of(tiny_gan, "ranks") / "ranks" / "rank-1.log").read_text()
    assert "rank 1 of 2" in log and "from outer step 0" in log
    # Adam divides by the root of a square: where a gradient is nearly zero, rounding decides.
    for mine, theirs in zip(found["ranks"], found["here"], strict=True):
        assert mine["generator_local"] == pytest.approx(theirs["generator_local"], rel=2e-3)


@pytest.mark.parametrize(
    ("overrides", "code", "says"),
    [
        (["method.global_wieght=1"], 2, "did you mean 'global_weight'?"),
        (["method.generator.noise_size=10"], 2, "more than 10"),
        (["method.pool.layers=[9,1]"], 2, "a block 0 to 1"),
        (["method.pool.networks=[{kind: convnet, depth: 5}]"], 2, "method.pool.networks[0].depth"),
        (["method.gan.batch_size=2000"], 2, "method.gan.batch_size: 2000, and there are 1000 training"),
        (["method.pool.networks=[{kind: resnet10}]"], 2, "16 pixels or more"),
        (["method.logits=sofmax"], 2, "did you mean 'log_softmax'?"),
        (["method.ema_decay=1"], 2, "between 0 and 1"),
        (["experts.num_epochs=50"], 2, "error: experts: method.kind=generative has no experts"),
        (["experts.num_epochs=50"], 2, "(experts=null on the command line)"),
        (["expert.num_epochs=50"], 2, "did you mean 'experts'?"),
    ],
)
def test_bad_input_is_one_clear_error_and_nothing_is_started(tiny_gan, tmp_path, capsys, overrides, code, says):
    assert main(["run", str(tiny_gan), *overrides, *HERE]) == code
    error = capsys.readouterr().err
    assert error.startswith("error: ") and says in error and "Traceback" not in error
    assert not (tmp_path / "runs").exists()


def test_an_engine_that_cannot_divide_a_generator_is_refused(tiny_gan, tmp_path, capsys):
    for engine, says in (
        ({"split": "segments", "num_ranks": 2}, "engine.split: segments: this method has no segments"),
        ({"num_ranks": 2, "zero": {"own_rows": True}}, "engine.zero.own_rows: what is learned has no rows"),
        ({"num_ranks": 9}, "at most 8"),
    ):
        path = tmp_path / "ranks.yaml"
        path.write_text(yaml.safe_dump({"kind": "ray", "engine": {"kind": "deepspeed", **engine}}))
        assert main(["run", str(tiny_gan), "--on", str(path)]) == 2
        assert says in capsys.readouterr().err


def test_a_damaged_generator_is_refused_and_a_folder_without_one_explained(tiny_gan, tmp_path, capsys):
    assert main(["distill", str(tiny_gan), *HERE]) == 0
    folder = folder_of(tiny_gan)
    path = folder / "generator" / "generator.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match="SHA-256 differs"):
        distributed_dd.load_generator(folder)
    assert main(["sample", str(folder), "images_per_class=1"]) == 5
    assert main(["run", str(tiny_gan), *HERE]) == 5
    with pytest.raises(MissingInputError, match="no distilled generator"):
        distributed_dd.load_generator(tmp_path)
    assert main(["sample", str(tmp_path / "nowhere"), "images_per_class=1"]) == 3
    assert main(["sample", str(folder), "images_per_clas=1"]) == 2
    assert "did you mean 'images_per_class'?" in capsys.readouterr().err


def test_a_generator_that_an_older_version_made_is_evaluated_and_sampled(tiny_gan, capsys):
    """Its files say how experts would have been trained, though it had none."""
    assert main(["distill", str(tiny_gan), "experts=null", *HERE]) == 0
    run = folder_of(tiny_gan)
    resolved = yaml.safe_load((run / "resolved.yaml").read_text())
    assert "experts" not in resolved
    (run / "resolved.yaml").write_text(yaml.safe_dump({**resolved, "experts": OLD_EXPERTS}))
    for place in ("generator", "distilled"):
        manifest = run / place / "manifest.json"
        values = json.loads(manifest.read_text())
        values["configuration"]["experts"] = OLD_EXPERTS
        del values["record"]
        manifest.write_text(json.dumps(values))
    small = ["num_networks=1", "full_data=false", "controls=[]"]
    assert main(["evaluate", str(run), *small, *HERE]) == 0
    assert main(["evaluate", str(run / "generator"), *small, *HERE]) == 0
    assert main(["sample", str(run / "generator"), "images_per_class=1"]) == 0
    assert main(["evaluate", str(run / "samples" / "ipc1-seed0"), *small, "no_augmentation=false", *HERE]) == 0
    (entry,) = json.loads((run / "generator_evaluation.json").read_text())["entries"]
    assert [row["name"] for row in entry["rows"]] == ["generated_fresh", "distilled", "random_real"]
    capsys.readouterr()
    assert main(["run", str(run / "resolved.yaml"), *HERE]) == 2
    assert "leave experts out" in capsys.readouterr().err
    assert main(["run", str(run / "resolved.yaml"), "experts=null", *HERE]) == 0
    assert folder_of(tiny_gan) == run, "the same run"


def test_weights_of_losses_are_searched_and_the_gan_is_trained_once(two_cores, tiny_gan, tmp_path, capsys):
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(
        f"""
base: {tiny_gan}
images_per_class: [2]
num_trials: 2
output: {tmp_path / "runs"}
search: {{kind: random}}
space:
  method.local_weight: {{kind: log_uniform, low: 1.0e-4, high: 1.0e-2}}
schedule: {{kind: asha, num_rungs: 2, reduction_factor: 2}}
num_finalists: 1
final_networks: 1
"""
    )
    cluster = tmp_path / "ray.yaml"
    cluster.write_text("{kind: ray, num_cpus: 2}")
    assert main(["tune", str(sweep), "--on", str(cluster)]) == 0
    assert len(list((tmp_path / "runs" / "gans").iterdir())) == 1
    (folder,) = (tmp_path / "runs" / "sweeps").iterdir()
    study = json.loads((folder / "ipc2" / "study.json").read_text())
    assert len(study["trials"]) == 2 and all("method.local_weight" in t["settings"] for t in study["trials"])
    assert "test accuracy of the best" in capsys.readouterr().out


def test_the_gan_and_the_run_are_in_mlflow_with_pictures_over_time(tiny_gan, tmp_path, monkeypatch, capsys):
    """Also where no server heard of them at first."""
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/nowhere/none.db")
    assert main(["run", str(tiny_gan), "tracker=mlflow", f"output={tmp_path / 'late'}", *HERE]) == 0
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert main(["run", str(tiny_gan), "tracker=mlflow", *HERE]) == 0
    assert main(["import", str(tmp_path / "late")]) == 0
    for output, steps in (("runs", {"gan": {0, 2, 4}, "run": {0, 3, 6}}), ("late", {"gan": {4}, "run": {6}})):
        client = MlflowClient(f"sqlite:///{tmp_path / output / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("distributed_dd/digits/generative")
        found = {run.data.tags["role"]: run for run in client.search_runs([experiment.experiment_id])}
        assert set(found) == {"gan", "run"} and found["run"].data.params["local_weight"] == "0.001"
        assert found["run"].data.tags["gan"] == found["gan"].data.tags["gan"]
        assert "test_accuracy_generated_fresh" in found["run"].data.metrics
        for role, run in found.items():
            assert run.info.status == "FINISHED"
            images = [a.path for a in client.list_artifacts(run.info.run_id, "images")]
            shown = {int(re.search(r"step.(\d+)", name)[1]) for name in images if "generated" in name}
            assert shown == steps[role], (output, role)
        names = {a.path for a in client.list_artifacts(found["run"].info.run_id)}
        assert {"generator", "distilled", "report.json"} <= names
