"""Saves of an expert in training: a chain that is followed as far as it is whole."""

import torch

from distributed_dd.trajectories.folder import LocalFolder
from distributed_dd.trajectories.unfinished import Reached, Unfinished, epochs_reached

RECORDED = (0.0, 1.0, 1.5, 2.0, 4.0)


def reached(epoch):
    rows = {e: torch.full((3,), e) for e in RECORDED if e <= epoch}
    theta_P, velocity_P = torch.full((3,), float(epoch)), torch.full((3,), -1.0)
    return Reached(epoch=epoch, theta_P=theta_P, velocity_P=velocity_P, seconds=2.0 * epoch, rows=rows)


def saved(tmp_path, *spans):
    unfinished = Unfinished(LocalFolder(tmp_path), "store", 7, RECORDED)
    for since, epoch in spans:
        unfinished.save(since, reached(epoch))
    return unfinished


def test_nothing_saved_is_nothing(tmp_path):
    assert saved(tmp_path).load() is None


def test_a_chain_of_saves_gives_the_last_state_and_all_rows(tmp_path):
    found = saved(tmp_path, (0, 1), (1, 2), (2, 3)).load()
    assert (found.epoch, found.seconds, found.theta_P[0], found.velocity_P[0]) == (3, 6.0, 3, -1)
    assert {e: float(row[0]) for e, row in found.rows.items()} == {0.0: 0, 1.0: 1, 1.5: 1.5, 2.0: 2}
    assert epochs_reached(LocalFolder(tmp_path)) == {7: 3}


def test_a_damaged_save_ends_the_chain_before_it(tmp_path):
    unfinished = saved(tmp_path, (0, 1), (1, 2), (2, 3))
    (victim,) = tmp_path.glob("*part-00001-00002-*")
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.write_bytes(content)
    found = unfinished.load()
    assert found.epoch == 1 and set(found.rows) == {0.0, 1.0}


def test_two_that_trained_the_same_expert_are_followed_by_the_longer_way(tmp_path):
    assert saved(tmp_path, (0, 1), (0, 2), (1, 3)).load().epoch == 2
    assert saved(tmp_path, (2, 4)).load().epoch == 4


def test_saves_with_other_recorded_epochs_are_not_used(tmp_path):
    saved(tmp_path, (0, 1), (1, 2))
    found = Unfinished(LocalFolder(tmp_path), "store", 7, (0.0, 1.0, 2.0)).load()
    assert found.epoch == 1


def test_other_experts_saves_are_left_alone(tmp_path):
    unfinished = saved(tmp_path, (0, 1))
    Unfinished(LocalFolder(tmp_path), "store", 70, RECORDED).save(0, reached(1))
    unfinished.clear()
    assert unfinished.load() is None and epochs_reached(LocalFolder(tmp_path)) == {70: 1}


def test_saves_of_another_expert_or_store_are_not_used_whatever_their_name(tmp_path):
    saved(tmp_path, (0, 1))
    (own,) = tmp_path.glob("expert-0007*")
    (tmp_path / own.name.replace("0007", "0008")).write_bytes(own.read_bytes())
    assert Unfinished(LocalFolder(tmp_path), "store", 8, RECORDED).load() is None
    assert Unfinished(LocalFolder(tmp_path), "another", 7, RECORDED).load() is None
