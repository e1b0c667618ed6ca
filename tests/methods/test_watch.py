"""What a person sees while experts train."""

import torch

from distributed_dd.backends.local.console import ConsoleProgress
from distributed_dd.methods.trajectory_matching import watch
from distributed_dd.trajectories.store import TrajectoryStore
from distributed_dd.trajectories.unfinished import Reached


class Bar:
    def __init__(self):
        self.told = []

    def advance(self, note=""):
        raise AssertionError("epochs are told, not counted")

    def reach(self, done, note=""):
        self.told.append((done, note))


def saved(store, expert, since, epoch):
    store.unfinished(expert, ()).save(
        since, Reached(epoch=epoch, theta_P=torch.zeros(2), velocity_P=torch.ones(2), seconds=1.0)
    )


def test_epochs_of_finished_experts_and_saved_ones_are_added_up(tmp_path):
    store, bar = TrajectoryStore.below(tmp_path, {}), Bar()
    seen = watch.Watch(store, [3, 5, 6], 10, bar)
    saved(store, 3, 0, 4)
    saved(store, 9, 0, 8)  # somebody else's
    seen.look()
    assert bar.told[-1] == (4, "")
    seen.finished(5, 0.5)
    saved(store, 3, 4, 6)
    seen.look()
    assert bar.told[-1] == (16, "1 of 3 experts, validation accuracy 50.0 %")


def test_what_was_saved_before_is_not_counted_as_speed(tmp_path, capsys, monkeypatch):
    """Catches a remaining time that is far too short after going on."""
    store = TrajectoryStore.below(tmp_path, {})
    saved(store, 0, 0, 90)
    monkeypatch.setattr("distributed_dd.backends.local.console.SECONDS_BETWEEN_LINES", 0.0)
    clock = iter([0.0, 0.0, 10.0, 10.0])
    monkeypatch.setattr("distributed_dd.backends.local.console.time.monotonic", lambda: next(clock, 10.0))
    with watch.watched(store, [0], 100, ConsoleProgress()) as seen:
        saved(store, 0, 90, 95)
        seen.look()
    assert "expert epochs: 95/100, 0.50/s, 0:10 left" in capsys.readouterr().out


def test_progress_never_goes_back_when_one_of_several_is_finished_first(tmp_path):
    """Catches the saves of the others counted only at the next look: a negative rate."""
    store, bar = TrajectoryStore.below(tmp_path, {}), Bar()
    saved(store, 0, 0, 80)
    saved(store, 1, 0, 70)
    watch.Watch(store, [0, 1], 100, bar).finished(0, 0.5)
    assert bar.told[-1][0] == 170


def test_a_store_that_cannot_be_listed_stops_nobody(tmp_path, monkeypatch):
    store, bar = TrajectoryStore.below(tmp_path, {}), Bar()
    seen = watch.Watch(store, [0], 10, bar)

    def fail():
        raise OSError("stale file handle")

    monkeypatch.setattr(store.folder, "names", fail)
    seen.look()
    assert bar.told == []
