"""Shards: whole or not there, readable from any row to any row."""

import pytest
import torch

from distributed_dd.errors import IntegrityError
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
    assert names == {shard.file for shard in (*old, *new)} | {"latest.json"}
    again = written(checkpoints, 15, 1)
    checkpoints.commit(15, {"newest": again, "best": again, "start": []}, {})
    assert {path.name for path in tmp_path.iterdir()} == {again[0].file, "latest.json"}


def test_shards_of_another_configuration_are_refused(tmp_path):
    checkpoints = Checkpoints(tmp_path, "config")
    shards = written(checkpoints, 5, 2)
    checkpoints.commit(5, {"newest": shards, "best": [], "start": []}, {})
    with pytest.raises(IntegrityError, match="another configuration"):
        Checkpoints(tmp_path, "other").load()
