"""The trajectory store: whole or absent, checksummed, of the right experts."""

import pytest
import torch

from distributed_dd.durable import write_json
from distributed_dd.errors import IntegrityError, MissingInputError
from distributed_dd.trajectories.store import TrajectoryStore, check_fits, stacked


def store(path, digest="a" * 64):
    return TrajectoryStore(path, digest, {"network": "n"})


def filled(path, count=2):
    made = store(path)
    for expert in range(count):
        made.write(expert, torch.arange(12.0).view(4, 3) + expert, {"seconds": 1.0})
    made.write_manifest(count)
    return made


def test_what_is_written_is_read_epoch_by_epoch(tmp_path):
    trajectory = filled(tmp_path).open(1)
    assert (trajectory.num_checkpoints, trajectory.num_parameters) == (4, 3)
    assert trajectory.checkpoint(2).tolist() == [7.0, 8.0, 9.0]
    assert torch.equal(trajectory.checkpoint(-1), trajectory.checkpoint(3))


def test_a_half_written_expert_is_no_expert(tmp_path):
    """Killed between the file and its record, or in the middle of the file."""
    made = filled(tmp_path)
    (made.folder / "expert-0002.safetensors").write_bytes(b"half")
    (made.folder / ".expert-0003.safetensors.17.part").write_bytes(b"half")
    assert made.missing(4) == [2, 3]


def test_a_flipped_bit_is_refused_and_named(tmp_path):
    made = filled(tmp_path)
    content = bytearray(made.file_of(0).read_bytes())
    content[-1] ^= 1
    made.file_of(0).write_bytes(content)
    with pytest.raises(IntegrityError, match="expert-0000"):
        made.open(0)
    assert made.open(1).num_parameters == 3


def test_a_manifest_of_other_experts_is_refused(tmp_path):
    made = filled(tmp_path)
    other = TrajectoryStore(tmp_path, "a" * 16 + "b" * 48, {"network": "m"})
    assert other.folder == made.folder
    for refused in (lambda: other.open(0), lambda: other.missing(2), lambda: other.write_manifest(2)):
        with pytest.raises(IntegrityError, match="other experts"):
            refused()
    (made.folder / "manifest.json").unlink()
    with pytest.raises(IntegrityError, match="other experts"):
        other.write_manifest(2)


def test_a_missing_expert_says_what_to_do(tmp_path):
    with pytest.raises(MissingInputError, match="distributed-dd experts"):
        filled(tmp_path).open(7)


def test_another_network_or_too_few_epochs_are_refused(tmp_path):
    trajectory = filled(tmp_path).open(0)
    check_fits(trajectory, "here", 3, 3)
    with pytest.raises(IntegrityError, match="3 parameters"):
        check_fits(trajectory, "here", 4, 3)
    with pytest.raises(IntegrityError, match="4 checkpoints"):
        check_fits(trajectory, "here", 3, 4)


def test_checkpoints_do_not_alias():
    live = torch.zeros(3)
    trajectory = stacked([live, live.add_(1).clone()])
    live.fill_(9)
    assert trajectory[1].tolist() == [1.0, 1.0, 1.0]


def test_a_manifest_keeps_the_experts_beyond_those_asked_for(tmp_path):
    made = filled(tmp_path, 3)
    made.write_manifest(1)
    assert made.facts(2)["expert"] == 2
    write_json(made.folder / "manifest.json", {"schema": 99})
    with pytest.raises(IntegrityError):
        made.facts(0)
