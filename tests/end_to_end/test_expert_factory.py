"""Experts as a factory: killed, short of disk, damaged, added to, kept in parts, stored elsewhere."""

import errno
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import safe_open

from distributed_dd import durable
from distributed_dd.cli import main
from distributed_dd.durable import sha256_of
from distributed_dd.methods.trajectory_matching import expert as stage
from distributed_dd.trajectories.store import TrajectoryStore
from tests.conftest import ROOT

HERE = ["--on", str(ROOT / "configs/clusters/in_process.yaml")]
AFTER_EVERY_EPOCH = "experts.save_every=0"


def store_in(folder: Path) -> Path:
    (found,) = [path for path in (folder / "experts").iterdir() if path.is_dir()]
    return found


def content(folder: Path) -> str:
    return TrajectoryStore.at(store_in(folder)).content_sha256


def trained(yaml: Path, output: Path, *overrides: str) -> str:
    assert main(["experts", str(yaml), f"output={output}", *overrides, *HERE]) == 0
    return content(output)


class Killed(BaseException):
    """As good as a SIGKILL: nothing in the program catches it."""


def die_in_epoch(monkeypatch, number: int) -> list[int]:
    """Die when the ``number``-th epoch in this process begins; returns the epochs that began."""
    began: list[int] = []
    whole = stage.Training.run_epoch

    def run_epoch(self, stops=(1.0,)):
        began.append(self.epoch)
        if len(began) == number:
            raise Killed
        yield from whole(self, stops)

    monkeypatch.setattr(stage.Training, "run_epoch", run_epoch)
    return began


@pytest.mark.parametrize("number", [2, 4, 5, 7])
def test_an_expert_goes_on_from_its_last_epoch_to_the_same_bits(tiny_yaml, tmp_path, monkeypatch, capsys, number):
    """Two experts of four epochs; killed at any epoch of either, six, five, .. are left, and no more."""
    undisturbed = trained(tiny_yaml, tmp_path / "whole", "experts.optimizer.momentum=0.9")
    with monkeypatch.context() as patched, pytest.raises(Killed):
        die_in_epoch(patched, number)
        trained(tiny_yaml, tmp_path / "killed", "experts.optimizer.momentum=0.9", AFTER_EVERY_EPOCH)
    capsys.readouterr()
    with monkeypatch.context() as patched:
        began = die_in_epoch(patched, 100)
        again = trained(tiny_yaml, tmp_path / "killed", "experts.optimizer.momentum=0.9", AFTER_EVERY_EPOCH)
    assert again == undisturbed and len(began) == 8 - (number - 1)
    saved = (number - 1) % 4
    told = f"going on: {saved} epochs of experts in training were saved"
    assert (told in capsys.readouterr().out) == (saved > 0)
    assert not list(store_in(tmp_path / "killed").glob("*.part*")), "saves are removed when they are done with"


@pytest.mark.parametrize("number", [1, 2, 5, 6, 10, 13])
def test_a_full_disk_stops_cleanly_and_the_same_command_goes_on(tiny_yaml, tmp_path, monkeypatch, capsys, number):
    """At the first save, in the middle of an expert, at its file, at its record, and at the manifest."""
    undisturbed = trained(tiny_yaml, tmp_path / "whole")
    writes, fsync = [], durable.os.fsync

    def full(descriptor):
        writes.append(1)
        if len(writes) == number:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(durable.os, "fsync", full)
        assert main(["experts", str(tiny_yaml), f"output={tmp_path / 'full'}", AFTER_EVERY_EPOCH, *HERE]) == 1
    error = capsys.readouterr().err
    assert "no space left" in error and "Traceback" not in error
    assert not list(store_in(tmp_path / "full").glob(".*.part")), "what was half-written is gone"
    assert trained(tiny_yaml, tmp_path / "full") == undisturbed


def test_a_diverged_expert_says_which_and_the_others_are_kept(tiny_yaml, tmp_path, monkeypatch, capsys):
    whole = stage.Training.run_epoch

    def run_epoch(self, stops=(1.0,)):
        yield from whole(self, stops)
        if self.key[2] == 1 and self.epoch == 2:
            self.theta_P = self.theta_P * float("nan")

    monkeypatch.setattr(stage.Training, "run_epoch", run_epoch)
    assert main(["experts", str(tiny_yaml), *HERE]) == 4
    assert "expert 1, epoch 2: its parameters are no longer finite" in capsys.readouterr().err
    assert sorted(p.name for p in store_in(tmp_path / "runs").glob("*.safetensors")) == ["expert-0000.safetensors"]


def shape_of(path: Path, name: str = "trajectory") -> list[int]:
    with safe_open(path, "pt") as file:
        return file.get_slice(name).get_shape()


def test_a_window_takes_less_disk_and_gives_the_same_set(tiny_yaml, tmp_path):
    """The window of this experiment uses epochs 0 to 3; 4 is the last."""
    sets = []
    for name, keep in (("all", "all"), ("window", "window")):
        narrow = ["method.segments.max_start_epoch=2", f"experts.trajectory.keep_epochs={keep}"]
        assert main(["run", str(tiny_yaml), f"output={tmp_path / name}", *narrow, *HERE]) == 0
        (run,) = (tmp_path / name).glob("digits-*")
        sets.append(sha256_of(run / "distilled" / "distilled.safetensors"))
    assert sets[0] == sets[1]
    rows = [shape_of(store_in(tmp_path / n) / "expert-0000.safetensors")[0] for n in ("all", "window")]
    assert rows == [5, 4]  # 0, 1, 2 and the last


def test_a_wider_window_trains_again_what_was_kept_too_short_and_says_so(tiny_yaml, tmp_path, capsys):
    narrow = ["method.segments.max_start_epoch=1", "experts.trajectory.keep_epochs=window"]
    assert main(["experts", str(tiny_yaml), *narrow, *HERE]) == 0
    wide = ["method.segments.max_start_epoch=3", "experts.trajectory.keep_epochs=window"]
    capsys.readouterr()
    assert main(["experts", str(tiny_yaml), *wide, *HERE]) == 0
    said = capsys.readouterr().out
    assert "kept without epochs 2-3, which this run needs" in said and "2 trained, 0 reused" in said
    assert main(["experts", str(tiny_yaml), *narrow, *HERE]) == 0
    assert "0 trained, 2 reused" in capsys.readouterr().out


def test_fractions_of_an_epoch_are_kept_and_matched(tiny_yaml, tmp_path):
    halves = ["method.segments.step=0.5", "method.expert_epochs=0.5"]
    assert main(["run", str(tiny_yaml), *halves, *HERE]) == 0
    manifest = json.loads((store_in(tmp_path / "runs") / "manifest.json").read_text())
    assert manifest["experts"][0]["epochs"] == "0,0.5,1,1.5,2,2.5,3-4"
    (run,) = (tmp_path / "runs").glob("digits-*")
    starts = {json.loads(line)["start_epoch"] for line in (run / "metrics.jsonl").read_text().splitlines()}
    assert any(start != int(start) for start in starts)


@pytest.mark.parametrize("form", ["kind=convex", "precision=float16"])
def test_other_forms_are_distilled_from_and_are_other_stores(tiny_yaml, tmp_path, form):
    assert main(["experts", str(tiny_yaml), *HERE]) == 0
    assert main(["run", str(tiny_yaml), f"experts.trajectory.{form}", *HERE]) == 0
    full, other = sorted(
        (path for path in (tmp_path / "runs" / "experts").iterdir()),
        key=lambda path: -(path / "expert-0000.safetensors").stat().st_size,
    )
    sizes = [(path / "expert-0000.safetensors").stat().st_size for path in (full, other)]
    assert sizes[1] < 0.6 * sizes[0]


CURRICULUM = [
    "experts.curriculum.kind=easy_to_hard",
    "experts.curriculum.full_epoch=2",
    "experts.curriculum.removal_epochs=[3]",
    "experts.curriculum.removal_fractions=[0.1]",
    "experts.curriculum.num_scorers=2",
    "experts.curriculum.scorer_epochs=1",
]


def test_a_curriculum_ranks_the_images_once_and_experts_added_later_share_it(tiny_yaml, tmp_path, capsys):
    both = trained(tiny_yaml, tmp_path / "at once", *CURRICULUM)
    assert both != trained(tiny_yaml, tmp_path / "without")
    trained(tiny_yaml, tmp_path / "one by one", *CURRICULUM, "experts.num_experts=1")
    (rank,) = store_in(tmp_path / "one by one").glob("easy_to_hard-*")
    made = rank.stat().st_mtime_ns
    assert trained(tiny_yaml, tmp_path / "one by one", *CURRICULUM) == both
    assert rank.stat().st_mtime_ns == made
    rank.write_bytes(rank.read_bytes()[:-1] + b"!")
    capsys.readouterr()
    trained(tiny_yaml, tmp_path / "one by one", *CURRICULUM, "experts.num_experts=3")
    assert "not what was written; it is made again" in capsys.readouterr().out


def test_experts_behind_an_address_are_trained_used_and_healed(tiny_yaml, tmp_path, capsys):
    import fsspec

    here = trained(tiny_yaml, tmp_path / "here")
    there = [f"experts.storage=memory://{tmp_path.name}", AFTER_EVERY_EPOCH]
    assert main(["run", str(tiny_yaml), *there, *HERE]) == 0
    files = fsspec.filesystem("memory")
    (place,) = files.ls(f"/{tmp_path.name}", detail=False)
    assert TrajectoryStore.at(f"memory:/{place}").content_sha256 == here
    assert not [name for name in files.ls(place, detail=False) if ".part" in name]
    assert not (tmp_path / "runs" / "experts").exists()
    victim = f"{place}/expert-0001.safetensors"
    whole = files.cat_file(victim)
    files.pipe_file(victim, whole[:-1])  # cut short: seen at once
    capsys.readouterr()
    assert main(["experts", str(tiny_yaml), *there, *HERE]) == 0
    assert "warning: expert 1 is not what was written" in capsys.readouterr().out
    assert TrajectoryStore.at(f"memory:/{place}").content_sha256 == here
    files.pipe_file(victim, whole[:-1] + b"!")  # changed: seen when it is fetched
    for cached in (tmp_path / "cache" / "experts").iterdir():
        cached.unlink()
    assert main(["distill", str(tiny_yaml), "seed=0", "num_outer_steps=7", *there, *HERE]) == 5
    error = capsys.readouterr().err
    assert "expert-0001" in error and "delete it and run the same command" in error


def test_show_says_what_disk_a_window_would_save(tiny_yaml, capsys):
    assert main(["show", str(tiny_yaml), "method.segments.max_start_epoch=1"]) == 0
    disk = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("disk"))
    rows = 2 * 1210 * 4  # of two experts, an epoch
    assert f"{5 * rows / 1024:.1f} KiB for 2 experts of 1,210 parameters" in disk
    assert f"({3 * rows / 1024:.1f} KiB with experts.trajectory.keep_epochs=window)" in disk
    assert main(["show", str(tiny_yaml), "experts.trajectory.precision=float16"]) == 0
    disk = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("disk"))
    assert f"{5 * rows / 2048:.1f} KiB for 2 experts" in disk


SLOW = ["experts.num_epochs=600", "experts.num_experts=3", "experts.save_every=0.2"]


def command(yaml: Path, output: Path) -> list[str]:
    return [sys.executable, "-m", "distributed_dd", "experts", str(yaml), f"output={output}", *SLOW]


@pytest.mark.parametrize(
    "patterns", [["*.part-*"], pytest.param(["*.part-*", "expert-*.json"], marks=pytest.mark.slow)]
)
def test_a_killed_driver_loses_nothing(tiny_yaml, tmp_path, patterns):
    """SIGKILL of the driver on Ray: with saves there, and again with an expert stored."""
    undisturbed = trained(tiny_yaml, tmp_path / "whole", *SLOW)
    output = tmp_path / "killed"
    for pattern in patterns:
        process = subprocess.Popen(
            command(tiny_yaml, output),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 480
        while not list((output / "experts").glob(f"*/{pattern}")) and process.poll() is None:
            assert time.monotonic() < deadline, "never got there"
            time.sleep(0.01)
        assert process.poll() is None, "finished before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert trained(tiny_yaml, output, *SLOW) == undisturbed


@pytest.mark.slow
def test_two_drivers_on_one_store_do_not_disturb_each_other(tiny_yaml, tmp_path):
    undisturbed = trained(tiny_yaml, tmp_path / "whole", *SLOW)
    both = [
        subprocess.Popen([*command(tiny_yaml, tmp_path / "shared"), *HERE], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted("3 trained, 0 reused" in text for text in said) == [False, True]
    assert any("waiting for the process that works in" in text for text in said)
    assert content(tmp_path / "shared") == undisturbed
