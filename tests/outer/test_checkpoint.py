"""Shards: whole or not there, readable from any row to any row."""

import json

import pytest
import torch

from distributed_dd.errors import DivergedError, IntegrityError
from distributed_dd.outer.checkpoint import Checkpoints
from distributed_dd.unroll import span


def tensors(first, last, step):
    rows = torch.arange(first, last, dtype=torch.float32)
    return {
        "images": rows.view(-1, 1, 1, 1).expand(-1, 1, 2, 2) + step,
        "labels": rows.view(-1, 1).expand(-1, 3),
        "classes": torch.arange(first, last),
        "learning_rate": torch.tensor(0.5),
    }


def written(checkpoints, step, num_parts, num_rows=7):
    spans = [span(num_rows, num_parts, part) for part in range(num_parts)]
    return [checkpoints.write_shard(step, part, num_parts, a, tensors(a, b, step)) for part, (a, b) in enumerate(spans)]


@pytest.mark.parametrize("num_parts", [1, 2, 3, 5])
def test_any_rows_come_back_whatever_the_cut(tmp_path, num_parts):
    checkpoints = Checkpoints(tmp_path, "config")
    saved = checkpoints.saved(written(checkpoints, 0, num_parts))
    for first in range(8):
        for last in range(first, 8):
            found = saved.rows("classes", first, last)
            assert found.tolist() == list(range(first, last))
            assert saved.rows("images", first, last).shape == (last - first, 1, 2, 2)
    assert saved.full_set()["images"][:, 0, 0, 0].tolist() == list(range(7))


def test_a_save_that_was_killed_between_shards_leaves_the_one_before(tmp_path):
    """One of two new shards, half of a third file: the next save begins from, and then clears up, both."""
    checkpoints = Checkpoints(tmp_path, "config")
    old = written(checkpoints, 5, 2)
    checkpoints.commit(5, {"newest": old, "best": old, "start": []}, {"best_step": 5})
    checkpoints.write_shard(10, 0, 2, 0, tensors(0, 4, 10))
    (tmp_path / ".step-00000010-00002-of-00002.safetensors.0123456789ab.part").write_bytes(b"half")
    record = checkpoints.load()
    assert record["step"] == 5 and record["newest"] == old and record["best_step"] == 5
    new = written(checkpoints, 10, 2)
    checkpoints.commit(10, {"newest": new, "best": old, "start": []}, {})
    names = {path.name for path in tmp_path.iterdir()}
    records = {"latest.json", "previous.json"}
    assert names == {shard.file for shard in (*old, *new)} | records
    for step in (15, 20):
        again = written(checkpoints, step, 1)
        checkpoints.commit(step, {"newest": again, "best": again, "start": []}, {})
    files = {f"step-{step:08d}-00001-of-00001.safetensors" for step in (15, 20)}
    assert {path.name for path in tmp_path.iterdir()} == files | records


def two_generations(folder):
    checkpoints = Checkpoints(folder, "config")
    for step in (5, 10):
        shards = written(checkpoints, step, 2)
        checkpoints.commit(step, {"newest": shards, "best": [], "start": []}, {"fact": step})
    return checkpoints


DAMAGES = {
    "a step changed by one": lambda c: edited(c.latest, step=11),
    "a fact changed": lambda c: edited(c.latest, fact=6),
    "half a record": lambda c: c.latest.write_bytes(c.latest.read_bytes()[:40]),
    "another shape": lambda c: c.latest.write_text("[1, 2]"),
    "a number": lambda c: c.latest.write_text("42"),
    "nothing": lambda c: c.latest.write_text(""),
    "deep nesting": lambda c: c.latest.write_text("[" * 100_000),
    "a folder in its place": lambda c: (c.latest.unlink(), c.latest.mkdir()),
    "another run's": lambda c: c.latest.write_bytes(foreign(c)),
    "no record": lambda c: c.latest.unlink(),
    "a shard changed": lambda c: flipped(c.folder / "step-00000010-00001-of-00002.safetensors"),
    "a shard missing": lambda c: (c.folder / "step-00000010-00002-of-00002.safetensors").unlink(),
    "an older shard under its name": lambda c: (c.folder / "step-00000010-00001-of-00002.safetensors").write_bytes(
        (c.folder / "step-00000005-00001-of-00002.safetensors").read_bytes()
    ),
}


def edited(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def flipped(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def foreign(checkpoints):
    other = Checkpoints(checkpoints.folder / "other", "another")
    shards = written(other, 10, 2)
    other.commit(10, {"newest": shards, "best": [], "start": []}, {})
    return other.latest.read_bytes()


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path, what):
    checkpoints = two_generations(tmp_path)
    DAMAGES[what](checkpoints)
    before = checkpoints.previous.read_bytes()
    record, warning = checkpoints.recover()
    assert record["step"] == record["fact"] == 5
    assert "of step 5" in warning and ("latest.json" in warning or "step-00000010" in warning)
    assert checkpoints.previous.read_bytes() == before
    # What workers load afterwards is the same, and the run goes on as if nothing had been.
    assert Checkpoints(tmp_path, "config").load()["step"] == 5
    assert checkpoints.recover()[1] == ""
    new = written(checkpoints, 10, 2)
    checkpoints.commit(10, {"newest": new, "best": [], "start": []}, {})
    assert checkpoints.load()["step"] == 10


def test_two_damaged_checkpoints_are_refused_and_left_alone(tmp_path):
    checkpoints = two_generations(tmp_path)
    checkpoints.latest.write_text("42")
    checkpoints.previous.write_text("42")
    with pytest.raises(IntegrityError, match="resume=never"):
        checkpoints.recover()
    assert checkpoints.latest.read_text() == checkpoints.previous.read_text() == "42"


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_make_no_checkpoint(tmp_path, number):
    checkpoints = two_generations(tmp_path)
    bad = {"classes": torch.arange(2), "momentum.images": torch.tensor([[1.0], [number]])}
    with pytest.raises(DivergedError, match=r"momentum\.images holds numbers that are not finite"):
        checkpoints.write_shard(15, 0, 1, 0, bad)
    assert checkpoints.load()["step"] == 10


def test_shards_of_another_configuration_are_refused(tmp_path):
    checkpoints = Checkpoints(tmp_path, "config")
    shards = written(checkpoints, 5, 2)
    checkpoints.commit(5, {"newest": shards, "best": [], "start": []}, {})
    with pytest.raises(IntegrityError, match="another configuration"):
        Checkpoints(tmp_path, "other").load()
