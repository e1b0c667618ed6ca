"""How far the experts are, told by the epochs that they have saved."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from distributed_dd.errors import UserError
from distributed_dd.outer.ports import Bar, Progress
from distributed_dd.trajectories.store import TrajectoryStore

SECONDS_BETWEEN_LOOKS = 10.0


class Watch:
    """Counts expert epochs: those of finished experts, and those that the others have saved."""

    def __init__(self, store: TrajectoryStore, missing: Sequence[int], num_epochs: int, bar: Bar) -> None:
        self._store, self._num_epochs, self._bar = store, num_epochs, bar
        before = store.epochs_reached()
        self._epochs = {expert: before.get(expert, 0) for expert in missing}
        self._lock = threading.Lock()
        self._note = ""

    def finished(self, expert: int, accuracy: float) -> None:
        """An expert is stored."""
        with self._lock:
            self._epochs[expert] = self._num_epochs
            done = sum(epochs == self._num_epochs for epochs in self._epochs.values())
            self._note = f"{done} of {len(self._epochs)} experts, validation accuracy {100 * accuracy:.1f} %"
            self._tell()

    def look(self) -> None:
        """Read from the store what was saved."""
        try:
            reached = self._store.epochs_reached()
        except (UserError, OSError):
            return  # told when it matters: here nothing is lost
        with self._lock:
            for expert, epoch in reached.items():
                if expert in self._epochs:
                    self._epochs[expert] = max(self._epochs[expert], epoch)
            self._tell()

    def _tell(self) -> None:
        self._bar.reach(sum(self._epochs.values()), self._note)


@contextmanager
def watched(store: TrajectoryStore, missing: Sequence[int], num_epochs: int, progress: Progress) -> Iterator[Watch]:
    """Show the progress of the missing experts while the body runs."""
    reached = sum(epoch for expert, epoch in store.epochs_reached().items() if expert in set(missing))
    if reached:
        progress.say(f"going on: {reached} epochs of experts in training were saved")
    with progress.bar("expert epochs", len(missing) * num_epochs, reached) as bar:
        watch = Watch(store, missing, num_epochs, bar)
        ended = threading.Event()

        def look_now_and_then() -> None:
            while not ended.wait(SECONDS_BETWEEN_LOOKS):
                watch.look()

        thread = threading.Thread(target=look_now_and_then, daemon=True)
        thread.start()
        try:
            yield watch
        finally:
            ended.set()
            thread.join()
