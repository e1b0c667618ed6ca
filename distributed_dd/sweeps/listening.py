"""How the driver of a sweep reacts to events of trials; and the hours that a sweep has taken."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed_dd.backends.ray.tune_events import Reported
from distributed_dd.outer.ports import Progress
from distributed_dd.records import read_record, write_record

SECONDS_BETWEEN_NOTES = 5.0
CLOCK, ORDER = "sweep clock", "order of proposals"


@dataclass
class Clock:
    """Hours that a sweep has taken, over all its drivers; ``owner``: the sweep's digest."""

    path: Path
    owner: str
    hours: float | None
    before: float = field(init=False)
    since: float = field(init=False)

    def __post_init__(self) -> None:
        self.before = 0.0
        if self.path.exists():
            self.before = read_record(self.path, CLOCK, owner=self.owner, needs={"seconds": float})["seconds"]
        self.since = self._noted = time.monotonic()

    def seconds(self) -> float:
        """Seconds that the sweep has taken so far."""
        return self.before + time.monotonic() - self.since

    def note(self) -> None:
        """Write the seconds down for the next driver."""
        write_record(self.path, CLOCK, self.owner, {"seconds": round(self.seconds(), 1)})
        self._noted = time.monotonic()

    def left(self) -> float | None:
        """Seconds left; None where there is no limit."""
        if time.monotonic() - self._noted > SECONDS_BETWEEN_NOTES:
            self.note()
        return None if self.hours is None else 3600 * self.hours - self.seconds()


@dataclass(kw_only=True)
class StudyListener:
    """Reacts to what happens to the trials of one study.

    Args:
        proposals: file that keeps the order in which trials were proposed, for later drivers.
        owner: digest of the sweep.
        what: how the study is called in lines for people.
        told_of: settings of a point as a person reads them.
        close: closes the tracker's run of a run folder, with how the trial ended and its number.
        ends: seconds on the clock at which the study must stop; None: never.
    """

    proposals: Path
    owner: str
    what: str
    rungs: tuple[int, ...]
    num_trials: int
    progress: Progress
    settings_line: Callable[[Mapping[str, float]], str]
    close: Callable[[str, str, int], None]
    clock: Clock
    ends: float | None
    keys: list[Any] = field(init=False)
    over: int = 0

    def __post_init__(self) -> None:
        self.keys = []
        if self.proposals.exists():
            self.keys = read_record(self.proposals, ORDER, owner=self.owner, needs={"keys": list})["keys"]

    def proposed(self, key: Any) -> None:
        """Remember the order in which trials are proposed, also for later drivers."""
        if key not in self.keys:
            self.keys.append(key)
            write_record(self.proposals, ORDER, self.owner, {"keys": self.keys})

    def order(self) -> list[Any]:
        """Keys in the order in which trials were proposed."""
        return self.keys

    def reported(self, key: Any, one: Reported) -> None:
        """Tell a person each score in a line."""
        facts = one.facts
        if facts is None or facts["status"] != "scored":
            return
        accuracy, step = facts["validation_accuracy"], facts["outer_step"]
        by = f"{facts['num_networks']} network{'s' * (facts['num_networks'] > 1)}"
        self.progress.say(
            f"{self.what}, trial {self._number(key)}, outer step {step} of {self.rungs[-1]}: validation "
            f"accuracy {100 * accuracy:.1f} % by {by} ({self.settings_line(one.point)})"
        )

    def lost(self, key: Any) -> None:
        """Warn a person: the trial goes on from its last checkpoint."""
        self.progress.say(
            f"warning: {self.what}, trial {self._number(key)}: its process or node died; it goes on elsewhere"
        )

    def ended(self, key: Any, one: Reported) -> None:
        """Tell a person how a trial ended, where it did not reach the last rung, and close its tracker."""
        self.over += 1
        facts, outcome, why = one.facts, "failed", one.error
        if facts and not why:
            finished = facts["outer_step"] >= self.rungs[-1]
            scored = facts["status"] == "scored"
            outcome = ("finished" if finished else "stopped") if scored else facts["status"]
            why = "" if scored else facts["message"]
        if outcome != "finished":
            why = why or "the others are better so far"
            self.progress.say(f"{self.what}, trial {self._number(key)} {outcome}: {why}")
        self.progress.say(f"{self.what}: {self.over} of {self.num_trials} trials are over")
        if facts and facts["run"]:
            self.close(facts["run"], outcome, self._number(key))

    def out_of_time(self) -> bool:
        """Whether this study's part of the hours is spent."""
        self.clock.left()
        return self.ends is not None and self.clock.seconds() > self.ends

    def _number(self, key: Any) -> int:
        return self.keys.index(key) if key in self.keys else len(self.keys)
