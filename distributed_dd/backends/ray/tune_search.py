"""One study of a sweep by Ray Tune: proposes points, runs trials, stops the worse early."""

import json
import logging
import os
import pickle
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from distributed_dd.backends.ray import tune_events as events
from distributed_dd.backends.ray.cluster import RayCluster, as_one_worker
from distributed_dd.backends.ray.tune_events import METRIC, TIME, Listener, Reported
from distributed_dd.errors import IntegrityError
from distributed_dd.search.dimensions import Coordinate
from distributed_dd.search.sweep import Asha, Grid, Population, Random

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


@dataclass(frozen=True)
class Session:
    """A trial's line to Tune.

    Attributes:
        donor_checkpoint: folder of the checkpoint that the trial goes on from, where it has one.
    """

    donor_checkpoint: Path | None

    def report(self, facts: Mapping[str, Any], checkpoint: Path | None = None) -> None:
        """Report to Tune; does not return where the trial is to stop."""
        from ray import tune

        kept = tune.Checkpoint.from_directory(str(checkpoint)) if checkpoint else None
        tune.report(dict(facts), checkpoint=kept)


@dataclass(frozen=True, kw_only=True)
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
            IntegrityError: the state in ``folder`` belongs to another user, or cannot be read.
        """
        own, ranks = cluster.resources_of_a_task(), cluster.engine.bundles(cluster)
        if ranks:
            own = {"cpu": 1, "gpu": 0}  # a trial's own process then does nothing heavy
        os.environ.update(ENVIRONMENT)
        for name in ("ray.tune", "ray.train", "optuna"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # the listener says what becomes of trials
        from ray import tune

        with_inputs = tune.with_parameters(_run_trial, trial=trial, job=job, shared=shared, own=own)
        resources: Any = tune.PlacementGroupFactory([{}, *ranks], strategy="PACK") if ranks else own
        trainable = tune.with_resources(with_inputs, resources)
        with events.listening(listener) as current:
            if tune.Tuner.can_restore(str(self.folder)):
                self._refuse_others()
            if not (self._has_state() and self._went_on(tune, trainable)):
                self.set_aside()
                self._begun(tune, trainable, listener.order()).fit()
            # Tune lists what it restored in another order than that of proposal.
            order = listener.order()
            trials = {number: events.key_of(trial) for number, trial in enumerate(current.trials)}
            places = {n: order.index(key) if key in order else len(order) for n, key in trials.items()}
            return [events.reported(current.trials[n]) for n in sorted(trials, key=places.__getitem__)]

    def set_aside(self) -> None:
        """Let the study begin anew, from what its trials' run folders hold."""
        if self.folder.exists():
            number = sum(1 for _ in self.folder.parent.glob(f"{self.folder.name}.*"))
            os.replace(self.folder, self.folder.with_name(f"{self.folder.name}.{number + 1}"))

    def _has_state(self) -> bool:
        """Whether a killed driver left a state to go on from; removes a file that it was still writing."""
        states = sorted(self.folder.glob("experiment_state-*.json"), key=lambda path: path.stat().st_mtime)
        while states and not _is_json(states[-1]):
            states.pop().unlink()
        return bool(states) and (self.folder / "tuner.pkl").exists()

    def _begun(self, tune: Any, trainable: Any, proposed: Sequence[Any]) -> Any:
        members = isinstance(self.search, Population)
        # Proposals of a study that begins anew come first: their trials go on from their run folders.
        points = [*self.points] if members or not proposed else [*proposed]
        seed = self.seed + max(0, len(points) - 1)
        domains: dict[str, Any] = {
            "point": {name: _domain(tune, c) for name, c in self.coordinates.items()},
            "by_id": members,
        }
        searcher: Any = None
        if isinstance(self.search, Grid):
            domains["point"] = tune.grid_search([dict(p) for p in self.points[: self.num_trials]])
        elif isinstance(self.search, Random | Population):
            searcher = tune.search.BasicVariantGenerator(
                points_to_evaluate=[{"point": dict(p)} for p in points] or None,
                random_state=seed,
                max_concurrent=self.max_concurrent or 0,
            )
        else:
            searcher = self._optuna(points, seed)
        return tune.Tuner(
            trainable,
            param_space=domains,
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode="max",
                search_alg=searcher,
                scheduler=self._scheduler(tune),
                num_samples=1 if isinstance(self.search, Grid) else self.num_trials,
                max_concurrent_trials=None if isinstance(self.search, Random | Population) else self.max_concurrent,
                # The next trial in the process of the last: a start costs seconds.
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=self.folder.name,
                storage_path=str(self.folder.parent),
                verbose=0,
                stop=events.out_of_time(),
                callbacks=[events.callback()],
                failure_config=tune.FailureConfig(max_failures=TRIES_OF_A_TRIAL),
            ),
        )

    def _refuse_others(self) -> None:
        # Tune's state is pickle: what others could write there would run as this user.
        for path in (self.folder, *self.folder.rglob("*")):
            if path.lstat().st_uid != os.getuid():
                raise IntegrityError(
                    str(path),
                    "belongs to another user; a sweep's state is only read from its owner's files",
                    fix="begin the sweep anew under another name=",
                )

    def _went_on(self, tune: Any, trainable: Any) -> bool:
        """Go on from Tune's state; False where a kill left parts of it that it cannot use."""
        tuner = self._restored(tune, trainable)
        try:
            tuner.fit()
        except RuntimeError:  # of a searcher whose state is gone
            return False
        return True

    def _restored(self, tune: Any, trainable: Any) -> Any:
        try:
            return tune.Tuner.restore(str(self.folder), trainable, resume_unfinished=True, resume_errored=True)
        except (OSError, EOFError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
            raise IntegrityError(
                str(self.folder),
                f"cannot be read: {events.first_line(error)}",
                fix="move the folder away: trials that were scored are not computed again",
            ) from None

    def _optuna(self, points: Sequence[Mapping[str, float]], seed: int) -> Any:
        import optuna
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        # A trial that goes on reports its last score again.
        warnings.filterwarnings("ignore", message="The reported value is ignored", category=UserWarning)
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.search.num_random)
        return OptunaSearch(
            points_to_evaluate=[{f"point/{k}": v for k, v in p.items()} for p in points], sampler=sampler
        )

    def _scheduler(self, tune: Any) -> Any:
        last = self.rungs[-1]
        if isinstance(self.search, Population):
            return tune.schedulers.PopulationBasedTraining(
                time_attr=TIME,
                perturbation_interval=self.rungs[0],
                hyperparam_mutations={"point": {name: _domain(tune, c) for name, c in self.coordinates.items()}},
                custom_explore_fn=partial(_kept_inside, coordinates=dict(self.coordinates)),
                log_config=False,
            )
        if not isinstance(self.schedule, Asha) or len(self.rungs) == 1:
            return tune.schedulers.FIFOScheduler()
        return _asha(
            dict(self.fixed) if self.fixed else None,
            time_attr=TIME,
            max_t=last,
            grace_period=self.schedule.first_rung(last),
            reduction_factor=self.schedule.reduction_factor,
        )


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text())
    except ValueError:
        return False
    return True


def _asha(fixed: dict[str, float] | None, **settings: Any) -> Any:
    from ray.tune.schedulers import ASHAScheduler, TrialScheduler

    class SparesTheBase(ASHAScheduler):
        """The trial of the base configuration goes to the end: what the others are compared with.

        At the last rung there is nothing to stop: a trial that was stopped there would not write its set.
        """

        def on_trial_result(self, controller: Any, trial: Any, result: dict) -> str:
            action = super().on_trial_result(controller, trial, result)
            spared = trial.config["point"] == fixed or result[TIME] >= settings["max_t"]
            return str(TrialScheduler.CONTINUE if spared else action)

    return SparesTheBase(stop_last_trials=False, **settings)


def _domain(tune: Any, c: Coordinate) -> Any:
    if not c.ordered:
        return tune.choice(list(range(int(c.low), int(c.high) + 1)))
    if c.integer:
        return tune.randint(int(c.low), int(c.high) + 1)
    return tune.loguniform(c.low, c.high) if c.log else tune.uniform(c.low, c.high)


def _kept_inside(config: dict[str, Any], coordinates: Mapping[str, Coordinate]) -> dict[str, Any]:
    """Population-based training multiplies what it copies, and would leave the space."""
    point = {n: min(max(v, coordinates[n].low), coordinates[n].high) for n, v in config["point"].items()}
    return {**config, "point": point}


def _run_trial(config: dict[str, Any], trial: Any, job: Any, shared: Any, own: dict[str, float]) -> None:
    """A trial, in the process that Tune gives it."""
    from ray import tune

    as_one_worker(own["cpu"], own["gpu"])
    checkpoint = tune.get_checkpoint()
    folder = Path(checkpoint.path) if checkpoint else None
    trial(config["point"], Session(folder), job, shared)
