"""The command line as a user types it, on an experiment of seconds."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import distributed_dd
from distributed_dd.cli import main
from distributed_dd.durable import sha256_of
from distributed_dd.errors import ConfigError, IntegrityError
from tests.conftest import ROOT
from tests.references.families import families

HERE = ["--on", str(ROOT / "configs/clusters/in_process.yaml")]
ROWS = [
    "distilled",
    "distilled_hard_labels",
    "distilled_last_step",
    "starting_set",
    "random_real",
    "random_real_soft_labels",
    "full_data",
    "expert",
]


def run_folder(tiny: Path) -> Path:
    (folder,) = (tiny.parent / "runs").glob("digits-*-????????")
    return folder


def test_run_writes_everything_in_the_contract_and_a_second_run_does_nothing(tiny_yaml, capsys):
    assert main(["run", str(tiny_yaml), *HERE]) == 0
    folder = run_folder(tiny_yaml)
    out = capsys.readouterr().out
    assert out.strip().splitlines()[-1] == f"output:   {folder}"
    for name in ("resolved.yaml", "environment.json", "metrics.jsonl", "checkpoint", "report.md", "log.txt"):
        assert (folder / name).exists(), name
    report = json.loads((folder / "report.json").read_text())
    assert report["schema"] == 1 and [row["name"] for row in report["rows"]] == ROWS
    assert all(row["num_networks"] == (2 if row["name"] == "expert" else 5) for row in report["rows"])
    assert set(report["seconds"]) == set(report["peak_memory_bytes"]) == {"experts", "distill", "evaluate"}
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*") if p.is_file()}
    assert main(["run", str(tiny_yaml), *HERE]) == 0
    assert "already finished" in capsys.readouterr().out
    assert before == {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*") if p.is_file()}


def test_the_artefact_trains_a_network_in_five_lines(tiny_yaml):
    assert main(["run", str(tiny_yaml), *HERE]) == 0
    distilled = distributed_dd.load_distilled(run_folder(tiny_yaml))
    image, label = distilled[0]
    assert image.shape == (1, 8, 8) and label.shape == (10,) and float(label.sum()) == pytest.approx(1)
    assert distilled.targets.tolist() == list(range(10))
    assert distilled.manifest["class_names"] == [str(n) for n in range(10)]
    pixels = torch.rand(4, 1, 8, 8)
    back = distilled.preprocessing.invert(distilled.preprocessing.apply(pixels))
    assert torch.allclose(back, pixels, atol=1e-5)
    hard = distributed_dd.load_distilled(run_folder(tiny_yaml), labels="hard")
    assert hard[3][1] == 3


def sha_of_set(folder: Path) -> str:
    return sha256_of(folder / "distilled" / "distilled.safetensors")


def kill_when(command: list[str], ready, seconds: float = 120) -> None:
    """Start ``command``, SIGKILL its whole group as soon as ``ready()`` says so."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + seconds
    while not ready() and process.poll() is None:
        assert time.monotonic() < deadline, "never got there"
        time.sleep(0.002)
    assert process.poll() is None, "finished before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_killed_and_resumed_ends_with_the_same_hash(tiny_yaml, tmp_path):
    """SIGKILL in the middle of the outer loop, if it can be on a save; `test_kills` has all the places."""
    slow = ["num_outer_steps=60", "evaluate.every=20", "method.student_steps=40"]
    assert main(["run", str(tiny_yaml), *slow, f"output={tmp_path / 'whole'}", *HERE]) == 0
    (whole,) = (tmp_path / "whole").glob("digits-*")
    command = [sys.executable, "-m", "distributed_dd", "run", str(tiny_yaml), *slow, *HERE]

    def lines() -> int:
        files = list((tmp_path / "runs").glob("digits-*/metrics.jsonl"))
        return len(files[0].read_text().splitlines()) if files else 0

    def saving() -> bool:
        return lines() > 15 and bool(list((tmp_path / "runs").glob("digits-*/checkpoint/.*.part")))

    kill_when(command, lambda: saving() or lines() >= 40)
    assert main(["run", str(tiny_yaml), *slow, *HERE]) == 0
    resumed = run_folder(tiny_yaml)
    assert sha_of_set(resumed) == sha_of_set(whole)
    first, second = ((f / "metrics.jsonl").read_text() for f in (whole, resumed))
    assert first == second


def test_more_experts_later_trains_only_the_missing_ones(tiny_yaml, tmp_path, capsys):
    assert main(["experts", str(tiny_yaml), *HERE]) == 0
    (store,) = (tmp_path / "runs" / "experts").iterdir()
    first = {p.name: sha256_of(p) for p in store.glob("*.safetensors")}
    assert main(["experts", str(tiny_yaml), "experts.num_experts=3", *HERE]) == 0
    assert "1 trained, 2 reused" in capsys.readouterr().out
    second = {p.name: sha256_of(p) for p in store.glob("*.safetensors")}
    assert len(second) == 3 and first.items() <= second.items()
    manifest = json.loads((store / "manifest.json").read_text())
    assert [entry["expert"] for entry in manifest["experts"]] == [0, 1, 2]


BAD = [
    (["num_outer_stepz=3"], 2, "did you mean 'num_outer_steps'?"),
    (["method.student_stepz=3"], 2, "method.student_stepz"),
    (["num_outer_steps=many"], 2, "a whole number"),
    (["network.kind=convnett"], 2, "did you mean 'convnet'?"),
    (["images_per_class=500"], 2, "at most"),
    (["method.segments.max_start_epoch=9"], 2, "at most 4"),
    (["method.expert_epochs=5"], 2, "at most 4"),
    (["resume=must"], 3, "no checkpoint"),
    (["experts.trajectory.keep_epochs=0-9"], 2, "experts.trajectory.keep_epochs: epoch 9 is beyond"),
    (["experts.trajectory.keep_epochs={a: 1}"], 2, "experts.trajectory.keep_epochs"),
    (["experts.trajectory={kind: convex, waypoints: [9]}"], 2, "experts.trajectory.waypoints: epoch 9"),
    (["experts.curriculum.kind=easy_to_hard"], 2, "experts.curriculum.full_epoch: 20 is beyond the 4"),
    (["experts.storage=nosuch://lab/experts"], 2, "nosuch://lab/experts"),
    (["experts.storage=/dev/null/experts"], 1, "or experts.storage= for experts"),
]


@pytest.mark.parametrize(("overrides", "code", "message"), BAD, ids=[b[0][0] for b in BAD])
def test_bad_input_gives_one_clear_error_and_its_code(tiny_yaml, capsys, overrides, code, message):
    assert main(["run", str(tiny_yaml), *overrides, *HERE]) == code
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err


def test_a_missing_file_is_named_with_those_that_are_there(tiny_yaml, capsys):
    assert main(["run", str(tiny_yaml.with_name("tine.yaml"))]) == 3
    assert "tiny.yaml" in capsys.readouterr().err


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_in_a_trajectory_is_refused_and_only_that_expert_retrained(tiny_yaml, tmp_path, capsys):
    assert main(["experts", str(tiny_yaml), *HERE]) == 0
    (store,) = (tmp_path / "runs" / "experts").iterdir()
    victim = store / "expert-0001.safetensors"
    good = sha256_of(victim)
    flip_bit(victim)
    bad = sha256_of(victim)
    assert main(["run", str(tiny_yaml), f"experts.store={store}", *HERE]) == 5
    assert "expert-0001" in capsys.readouterr().err and sha256_of(victim) == bad
    assert main(["run", str(tiny_yaml), *HERE]) == 0
    said = capsys.readouterr().out
    assert "warning: expert 1 is not what was written" in said and "1 trained, 1 reused" in said
    assert sha256_of(victim) == good and sha256_of(store / "expert-0001.safetensors.damaged") == bad


def test_experts_of_another_network_are_refused_and_left_alone(tiny_yaml, tmp_path, capsys):
    """Somebody copied a store under the name of another."""
    assert main(["experts", str(tiny_yaml), *HERE]) == 0
    (first,) = (tmp_path / "runs" / "experts").iterdir()
    assert main(["experts", str(tiny_yaml), "network.width=8", *HERE]) == 0
    (second,) = set((tmp_path / "runs" / "experts").iterdir()) - {first}
    for file in [p for p in second.iterdir() if p.suffix in (".json", ".safetensors")]:
        (first / file.name).write_bytes(file.read_bytes())
    before = {p.name: sha256_of(p) for p in first.iterdir()}
    assert main(["run", str(tiny_yaml), *HERE]) == 5
    assert "other experts" in capsys.readouterr().err
    assert before == {p.name: sha256_of(p) for p in first.iterdir()}


def test_two_processes_do_not_share_a_run_folder(tiny_yaml, capsys):
    from distributed_dd.locks import locked

    assert main(["distill", str(tiny_yaml), *HERE]) == 0
    with locked(run_folder(tiny_yaml), "run"):
        assert main(["run", str(tiny_yaml), *HERE]) == 1
    assert "another process is working on this run" in capsys.readouterr().err
    assert main(["run", str(tiny_yaml), *HERE]) == 0


def test_an_output_folder_that_cannot_be_one_is_one_error(tiny_yaml, tmp_path, capsys):
    (tmp_path / "file").write_text("here already")
    assert main(["run", str(tiny_yaml), f"output={tmp_path / 'file'}", *HERE]) == 1
    error = capsys.readouterr().err
    assert "cannot be written" in error and "output=" in error and "Traceback" not in error


def test_a_damaged_checkpoint_is_refused_and_left_alone(tiny_yaml, capsys):
    assert main(["distill", str(tiny_yaml), *HERE]) == 0
    folder = run_folder(tiny_yaml)
    (folder / "distilled" / "manifest.json").unlink()
    (checkpoint,) = (folder / "checkpoint").glob("step-00000006*")
    flip_bit(checkpoint)
    (folder / "checkpoint" / "previous.json").unlink()
    damaged = sha256_of(checkpoint)
    assert main(["distill", str(tiny_yaml), *HERE]) == 5
    assert "damaged" in capsys.readouterr().err and sha256_of(checkpoint) == damaged
    assert main(["distill", str(tiny_yaml), "resume=never", *HERE]) == 0
    assert (folder.with_name(folder.name + ".1") / "checkpoint" / checkpoint.name).exists()


def test_a_damaged_newest_checkpoint_costs_what_came_after_the_one_before(tiny_yaml, capsys):
    assert main(["distill", str(tiny_yaml), *HERE]) == 0
    folder = run_folder(tiny_yaml)
    first = sha256_of(folder / "distilled" / "distilled.safetensors")
    metrics = (folder / "metrics.jsonl").read_text()
    shutil.rmtree(folder / "distilled")
    (checkpoint,) = (folder / "checkpoint").glob("step-00000006*")
    flip_bit(checkpoint)
    assert main(["distill", str(tiny_yaml), *HERE]) == 0
    assert "going on from the checkpoint before it, of step 4" in capsys.readouterr().out
    assert sha256_of(folder / "distilled" / "distilled.safetensors") == first
    assert (folder / "metrics.jsonl").read_text() == metrics


def test_a_flipped_bit_in_the_artefact_is_refused(tiny_yaml):
    assert main(["distill", str(tiny_yaml), *HERE]) == 0
    flip_bit(run_folder(tiny_yaml) / "distilled" / "distilled.safetensors")
    with pytest.raises(IntegrityError, match="SHA-256"):
        distributed_dd.load_distilled(run_folder(tiny_yaml))


def test_the_real_images_of_a_set_come_as_its_networks_see_them(tiny_yaml):
    assert main(["distill", str(tiny_yaml), *HERE]) == 0
    distilled, test = (f(run_folder(tiny_yaml)) for f in (distributed_dd.load_distilled, distributed_dd.load_real))
    assert len(test) == 540 and len(distributed_dd.load_real(run_folder(tiny_yaml), "train")) == 1000
    image, label = test[0]
    assert image.shape == (1, 8, 8) and 0 <= int(label) <= 9
    pixels = distilled.preprocessing.invert(test.tensors[0])
    assert pixels.min() > -1e-5 and pixels.max() < 1 + 1e-5
    assert distilled.manifest["learning_rate"] == distilled.learning_rate
    with pytest.raises(ConfigError, match="did you mean 'test'"):
        distributed_dd.load_real(run_folder(tiny_yaml), "tets")
    with pytest.raises(ConfigError, match="soft, hard"):
        distributed_dd.load_distilled(run_folder(tiny_yaml), labels="foo")
    for wrong in (torch.zeros(2, 3, 8, 8), torch.zeros(1, 8, 8), torch.zeros(2, 1, 8, 8).byte(), [1, 2]):
        with pytest.raises(ConfigError, match="float tensor"):
            distilled.preprocessing.apply(wrong)


def test_sigterm_ends_like_an_interrupt_and_the_same_command_goes_on(tiny_yaml, tmp_path):
    interrupted = "interrupted; the same command goes on from what was saved"
    slow = ["num_outer_steps=4000", "evaluate.every=4000"]
    command = [sys.executable, "-m", "distributed_dd", "run", str(tiny_yaml), *slow]  # with Ray, as users do
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 480
    while not list((tmp_path / "runs").glob("digits-*/checkpoint/latest.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.terminate()
    _, error = process.communicate(timeout=480)
    assert (process.returncode, error.strip()) == (130, interrupted), error


def test_a_report_of_a_damaged_set_is_not_given(tiny_yaml, capsys):
    assert main(["run", str(tiny_yaml), *HERE]) == 0
    flip_bit(run_folder(tiny_yaml) / "distilled" / "distilled.safetensors")
    for verb in ("run", "evaluate"):
        assert main([verb, str(tiny_yaml), *HERE]) == 5


def test_the_report_of_a_resumed_run_still_knows_what_its_experts_cost(tiny_yaml):
    assert main(["distill", str(tiny_yaml), *HERE]) == 0
    first = json.loads((run_folder(tiny_yaml) / "costs.json").read_text())["experts"][0]
    assert main(["run", str(tiny_yaml), *HERE]) == 0
    report = json.loads((run_folder(tiny_yaml) / "report.json").read_text())
    assert report["seconds"]["experts"] == first > 0


def test_divergence_stops_before_the_update_with_code_4_and_keeps_the_last_state(tiny_yaml, capsys):
    explosive = ["method.image_optimizer.learning_rate=1e38", "method.gate=null", "checkpoint_every=1"]
    assert main(["run", str(tiny_yaml), *explosive, *HERE]) == 4
    assert "not finite" in capsys.readouterr().err
    from safetensors.torch import load_file

    (newest,) = sorted((run_folder(tiny_yaml) / "checkpoint").glob("step-*"))[-1:]
    assert all(bool(torch.isfinite(t).all()) for t in load_file(newest).values())


def test_a_full_disk_is_one_error_and_the_same_command_goes_on(tiny_yaml, monkeypatch, capsys):
    import errno

    real = os.fsync
    calls = {"n": 0}

    def full(descriptor):
        calls["n"] += 1
        if calls["n"] > 30:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    assert main(["run", str(tiny_yaml), *HERE]) == 1
    assert "no space left" in capsys.readouterr().err
    monkeypatch.setattr(os, "fsync", real)
    assert main(["run", str(tiny_yaml), *HERE]) == 0


def test_show_starts_nothing(tiny_yaml, capsys):
    assert main(["show", str(tiny_yaml)]) == 0
    out = capsys.readouterr().out
    assert "TFLOP" in out and "0 of 2 present" in out and "student_steps: 3" in out
    assert not (tiny_yaml.parent / "runs").exists()


def test_kinds_lists_every_member(capsys):
    assert main(["kinds"]) == 0
    out = capsys.readouterr().out
    assert len(families()) >= 19
    for family in families():
        _, _, listed = out.partition(f"\n{family.name}, chosen by kind\n")
        own = listed.partition(", chosen by kind")[0]
        assert own and all(f"  {kind}: " in own for kind in family.members), family.name
    assert "  experts (a group, with method.kind trajectory_matching)\n      num_epochs (" in out


@pytest.mark.parametrize("file", sorted((ROOT / "configs").rglob("digits/*.yaml")), ids=lambda p: p.name)
def test_every_shipped_configuration_shows(file, capsys, tmp_path):
    assert main(["show", str(file), f"output={tmp_path}"]) == 0


def test_controls_that_are_asked_for_later_are_added_and_nothing_else_is_trained_again(tiny_yaml, capsys):
    assert main(["run", str(tiny_yaml), *HERE]) == 0
    folder = run_folder(tiny_yaml)
    before = {row["name"]: row for row in json.loads((folder / "report.json").read_text())["rows"]}
    num_scored = len((folder / "scored.jsonl").read_text().splitlines())
    assert main(["run", str(tiny_yaml), "evaluate.controls=[herding, k_center]", *HERE]) == 0
    assert run_folder(tiny_yaml) == folder, "controls do not decide what the run is"
    after = {row["name"]: row for row in json.loads((folder / "report.json").read_text())["rows"]}
    new = {"herding", "herding_soft_labels", "k_center", "k_center_soft_labels"}
    assert after.keys() - before.keys() == new and {name: after[name] for name in before} == before
    # Five networks a row on test, and one for each of two rates on validation.
    assert len((folder / "scored.jsonl").read_text().splitlines()) == num_scored + len(new) * (5 + 2)
    said = capsys.readouterr().out
    assert "bove" in said and "of networks" in said
    assert main(["run", str(tiny_yaml), "evaluate.controls=[herding]", *HERE]) == 0
    assert "already finished" in capsys.readouterr().out
    assert all(len(row["accuracies"]) == row["num_networks"] for row in after.values())
