"""One study of a sweep by Ray Tune: proposes points, runs trials, stops the worse early."""

import logging
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from distributed_dd.backends.ray_cluster import RayCluster, as_one_worker
from distributed_dd.errors import IntegrityError, UserError
from distributed_dd.stages.space import Coordinate
from distributed_dd.stages.sweep import Asha, Grid, Population, Random

METRIC, TIME = "validation_accuracy", "outer_step"
TRIES_OF_A_TRIAL = 20
ENVIRONMENT = {
    # A killed driver loses no trial that was begun more than a second ago.
    "TUNE_GLOBAL_CHECKPOINT_S": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Relative folders of a configuration mean the driver's.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}


class Listener(Protocol):
    """Hears what becomes of the trials, in the driver. A trial is known by a key that outlives drivers."""

    def proposed(self, key: Any) -> None:
        """A trial is to be run; told again and again."""
        ...

    def order(self) -> list[Any]:
        """Keys in the order in which trials were proposed, over all drivers."""
        ...

    def told(self, key: Any, one: "Reported") -> None:
        """A trial was scored, or ended by itself."""
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


@dataclass(frozen=True)
class Session:
    """A trial's line to Tune.

    Attributes:
        given: folder of the checkpoint that the trial goes on from, where it was told one.
    """

    given: Path | None

    def report(self, facts: Mapping[str, Any], checkpoint: Path | None = None) -> None:
        """Tell Tune. Does not come back from it where the trial is to stop."""
        from ray import tune

        kept = tune.Checkpoint.from_directory(str(checkpoint)) if checkpoint else None
        tune.report(dict(facts), checkpoint=kept)


@dataclass(frozen=True)
class TuneStudy:
    """A search as Ray Tune does it.

    Attributes:
        folder: where Tune keeps its state; its name is the study's.
        points: tried first: the base configuration, or all points of a grid.
        fixed: a point whose trial is never stopped early.
    """

    folder: Path
    coordinates: Mapping[str, Coordinate]
    points: Sequence[Mapping[str, float]]
    fixed: Mapping[str, float] | None
    search: Any
    schedule: Any
    rungs: tuple[int, ...]
    num_trials: int
    seed: int
    max_concurrent: int | None = None

    def run(
        self, trial: Callable[..., None], job: Any, shared: Any, cluster: RayCluster, listener: Listener
    ) -> list[Reported]:
        """Run ``trial(point, session, job, shared)`` for every point, or go on where a driver was killed.

        Raises:
            IntegrityError: the state in ``folder`` is somebody else's, or cannot be read.
        """
        resources = cluster.resources_of_a_task()
        os.environ.update(ENVIRONMENT)
        for name in ("ray.tune", "ray.train", "optuna"):
            logging.getLogger(name).setLevel(logging.ERROR)
        from ray import tune

        given = tune.with_parameters(_run_trial, trial=trial, job=job, shared=shared, cpus=resources["cpu"])
        trainable = tune.with_resources(given, resources)
        with _listening(listener):
            if tune.Tuner.can_restore(str(self.folder)):
                tuner = self._restored(tune, trainable)
            else:
                tuner = self._begun(tune, trainable)
            tuner.fit()
            # Tune lists what it restored in another order than that of proposal.
            order = listener.order()
            keys = [_key(trial) for trial in _CURRENT.trials]
            places = [order.index(key) if key in order else len(order) for key in keys]
            return [_reported(_CURRENT.trials[at]) for at in sorted(range(len(keys)), key=places.__getitem__)]

    def _begun(self, tune: Any, trainable: Any) -> Any:
        members = isinstance(self.search, Population)
        domains: dict[str, Any] = {
            "point": {name: _domain(tune, c) for name, c in self.coordinates.items()}, "by_id": members
        }  # fmt: skip
        searcher: Any = None
        if isinstance(self.search, Grid):
            domains["point"] = tune.grid_search([dict(p) for p in self.points[: self.num_trials]])
        elif isinstance(self.search, Random | Population):
            searcher = tune.search.BasicVariantGenerator(
                points_to_evaluate=[{"point": dict(p)} for p in self.points] or None,
                random_state=self.seed, max_concurrent=self.max_concurrent or 0,
            )  # fmt: skip
        else:
            searcher = self._optuna()
        return tune.Tuner(
            trainable,
            param_space=domains,
            tune_config=tune.TuneConfig(
                metric=METRIC, mode="max", search_alg=searcher, scheduler=self._scheduler(tune),
                num_samples=1 if isinstance(self.search, Grid) else self.num_trials,
                max_concurrent_trials=None if isinstance(self.search, Random | Population)
                else self.max_concurrent,
                # The next trial in the process of the last: a start costs seconds.
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=self.folder.name, storage_path=str(self.folder.parent), verbose=0,
                stop=_out_of_time(), callbacks=[_callback()],
                failure_config=tune.FailureConfig(max_failures=TRIES_OF_A_TRIAL),
            ),
        )  # fmt: skip

    def _restored(self, tune: Any, trainable: Any) -> Any:
        # Tune's state is pickle: what others could write there would run as this user.
        for path in (self.folder, *self.folder.rglob("*")):
            if path.lstat().st_uid != os.getuid():
                raise IntegrityError(
                    str(path), "belongs to another user; a sweep's state is only read from its owner's files",
                    fix="begin the sweep anew under another name=",
                )  # fmt: skip
        try:
            return tune.Tuner.restore(
                str(self.folder), trainable, resume_unfinished=True, resume_errored=True
            )
        except (OSError, EOFError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
            raise IntegrityError(
                str(self.folder), f"cannot be read: {_first_line(error)}",
                fix="move the folder away: trials that were scored are not computed again",
            ) from None  # fmt: skip

    def _optuna(self) -> Any:
        import optuna
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        sampler = optuna.samplers.TPESampler(seed=self.seed, n_startup_trials=self.search.num_random)
        return OptunaSearch(points_to_evaluate=[{f"point/{k}": v for k, v in p.items()} for p in self.points],
                            sampler=sampler)  # fmt: skip

    def _scheduler(self, tune: Any) -> Any:
        last = self.rungs[-1]
        if isinstance(self.search, Population):
            return tune.schedulers.PopulationBasedTraining(
                time_attr=TIME, perturbation_interval=self.rungs[0],
                hyperparam_mutations={
                    "point": {name: _domain(tune, c) for name, c in self.coordinates.items()}
                },
                custom_explore_fn=partial(_kept_inside, coordinates=dict(self.coordinates)), log_config=False,
            )  # fmt: skip
        if not isinstance(self.schedule, Asha) or len(self.rungs) == 1:
            return tune.schedulers.FIFOScheduler()
        return _asha(
            dict(self.fixed) if self.fixed else None, time_attr=TIME, max_t=last,
            grace_period=self.schedule.first_rung(last), reduction_factor=self.schedule.reduction_factor,
        )  # fmt: skip


def _asha(fixed: dict[str, float] | None, **settings: Any) -> Any:
    from ray.tune.schedulers import ASHAScheduler, TrialScheduler

    class SparesTheBase(ASHAScheduler):
        """The trial of the base configuration goes to the end: what the others are compared with."""

        def on_trial_result(self, controller: Any, trial: Any, result: dict) -> str:
            action = super().on_trial_result(controller, trial, result)
            spared = trial.config["point"] == fixed and result[TIME] < settings["max_t"]
            return str(TrialScheduler.CONTINUE if spared else action)

    return SparesTheBase(**settings)


def _domain(tune: Any, c: Coordinate) -> Any:
    if not c.ordered:
        return tune.choice(list(range(int(c.low), int(c.high) + 1)))
    if c.whole:
        return tune.randint(int(c.low), int(c.high) + 1)
    return tune.loguniform(c.low, c.high) if c.log else tune.uniform(c.low, c.high)


def _kept_inside(config: dict[str, Any], coordinates: Mapping[str, Coordinate]) -> dict[str, Any]:
    """Population-based training multiplies what it copies, and would leave the space."""
    point = {n: min(max(v, coordinates[n].low), coordinates[n].high) for n, v in config["point"].items()}
    return {**config, "point": point}


def _run_trial(config: dict[str, Any], trial: Any, job: Any, shared: Any, cpus: float) -> None:
    """A trial, in the process that Tune gives it."""
    from ray import tune

    as_one_worker(cpus, tune.get_context().get_trial_resources().required_resources.get("GPU", 0))
    checkpoint = tune.get_checkpoint()
    given = Path(checkpoint.path) if checkpoint else None
    trial(config["point"], Session(given), job, shared)


def _reported(trial: Any) -> Reported:
    facts = trial.last_result if METRIC in (trial.last_result or {}) else None
    return Reported(trial.config["point"], dict(facts) if facts else None, _first_line(trial.get_error()))


def _key(trial: Any) -> Any:
    """The point: a trial that a killed driver had just begun gets another id. A member's point changes."""
    return trial.trial_id if trial.config["by_id"] else trial.config["point"]


def _first_line(error: Any) -> str:
    """What an error says, without the stack that Ray puts around it."""
    if error is None:
        return ""
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, UserError):
        return f"{cause.where}: {cause.problem}"
    lines = [line for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[-1].strip() if lines else ''}"


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
def _listening(listener: Listener) -> Iterator[None]:
    _CURRENT.listener = listener
    try:
        yield
    finally:
        _CURRENT.listener = None


def _out_of_time() -> Any:
    from ray import tune

    class OutOfTime(tune.Stopper):
        """Stops everything when the budget of hours is spent."""

        def __call__(self, trial_id: str, result: dict) -> bool:
            return False

        def stop_all(self) -> bool:
            listener = _current().listener
            return listener is not None and listener.out_of_time()

    return OutOfTime()


def _callback() -> Any:
    from ray import tune

    class Told(tune.Callback):
        """Hands on what becomes of trials."""

        def on_step_end(self, iteration: int, trials: list, **info: Any) -> None:
            for trial in trials:
                if listener := _current().listener:
                    listener.proposed(_key(trial))

        def on_trial_result(
            self, iteration: int, trials: list, trial: Any, result: dict, **info: Any
        ) -> None:
            if (listener := _current().listener) and METRIC in result:
                listener.told(_key(trial), Reported(trial.config["point"], result, ""))

        def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            self._ended(trial)

        def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            self._ended(trial)

        def on_experiment_end(self, trials: list, **info: Any) -> None:
            _current().trials = list(trials)

        def _ended(self, trial: Any) -> None:
            if listener := _current().listener:
                listener.ended(_key(trial), _reported(trial))

    return Told()
