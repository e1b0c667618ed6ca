"""What becomes of Ray Tune's trials while a study goes on, handed to the sweep that listens."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from distributed_dd.errors import UserError

METRIC, TIME = "validation_accuracy", "outer_step"


class Listener(Protocol):
    """Hears what becomes of the trials, in the driver. A trial is known by a key that outlives drivers."""

    def proposed(self, key: Any) -> None:
        """A trial is to be run; called again and again for the same trial."""
        ...

    def order(self) -> list[Any]:
        """Keys in the order in which trials were proposed, over all drivers."""
        ...

    def reported(self, key: Any, one: "Reported") -> None:
        """A trial was scored, or ended by itself."""
        ...

    def lost(self, key: Any) -> None:
        """A trial's process or node died; it will go on elsewhere."""
        ...

    def ended(self, key: Any, one: "Reported") -> None:
        """A trial is over: at its end, stopped early, or failed with an error."""
        ...

    def out_of_time(self) -> bool:
        """Whether all trials must stop now."""
        ...


@dataclass(frozen=True)
class Reported:
    """What Tune keeps of a trial: its point, its last report if there was one, and why it failed."""

    point: dict[str, float]
    facts: dict[str, Any] | None
    error: str


def reported(trial: Any) -> Reported:
    """What a sweep needs to know of one of Tune's trials."""
    facts = trial.last_result if METRIC in (trial.last_result or {}) else None
    # An error from which the trial recovered stays with it.
    error = first_line(trial.get_error()) if trial.status == "ERROR" else ""
    return Reported(trial.config["point"], dict(facts) if facts else None, error)


def key_of(trial: Any) -> Any:
    """What identifies a trial over all drivers: its point, or the id of a population's member.

    A trial that a killed driver had just begun gets another id; a member's point changes.
    """
    return trial.trial_id if trial.config["by_id"] else trial.config["point"]


def first_line(error: Any) -> str:
    """What an error says, without the stack that Ray puts around it."""
    if error is None:
        return ""
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, UserError):
        return f"{cause.where}: {cause.problem}"
    lines = [line for line in str(cause).splitlines() if line.strip()]
    reason = lines[-1].strip() if lines else ""
    return reason.partition(". ")[0] if isinstance(cause, str) else f"{type(cause).__name__}: {reason}"


@dataclass
class _Current:
    """The listener of the study at hand, and all of its trials once they are over."""

    listener: Listener | None = None
    trials: Sequence[Any] = ()


_CURRENT = _Current()


def _current() -> _Current:
    """The study at hand; by this name, or Tune would pickle it into its state with the objects below."""
    return _CURRENT


@contextmanager
def listening(listener: Listener) -> Iterator[_Current]:
    """What `callback` and `out_of_time` hear goes to ``listener`` while the body runs."""
    _CURRENT.listener, _CURRENT.trials = listener, ()
    try:
        yield _CURRENT
    finally:
        _CURRENT.listener = None


def out_of_time() -> Any:
    """A stopper for Tune that asks the listener."""
    from ray import tune

    class OutOfTime(tune.Stopper):
        """Stops everything when the budget of hours is spent."""

        def __call__(self, trial_id: str, result: dict) -> bool:
            return False

        def stop_all(self) -> bool:
            listener = _current().listener
            return listener is not None and listener.out_of_time()

    return OutOfTime()


def callback() -> Any:
    """A callback for Tune that hands on to the listener what becomes of trials."""
    from ray import tune

    class ListenerCallback(tune.Callback):
        """Hands on what becomes of trials."""

        def on_step_end(self, iteration: int, trials: list, **info: Any) -> None:
            for trial in trials:
                if listener := _current().listener:
                    listener.proposed(key_of(trial))

        def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
            if (listener := _current().listener) and METRIC in result:
                listener.reported(key_of(trial), Reported(trial.config["point"], result, ""))

        def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            self._ended(trial)

        def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            self._ended(trial)

        def on_trial_recover(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            if listener := _current().listener:
                listener.lost(key_of(trial))

        def on_experiment_end(self, trials: list, **info: Any) -> None:
            _current().trials = list(trials)

        def _ended(self, trial: Any) -> None:
            if listener := _current().listener:
                listener.ended(key_of(trial), reported(trial))

    return ListenerCallback()
