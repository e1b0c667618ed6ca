"""A sweep from its plan to its report: experts, a study for each size, a last choice, the winners' test."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from distributed_dd import config
from distributed_dd.backends.local.cluster import InProcess
from distributed_dd.backends.local.console import ConsoleProgress
from distributed_dd.backends.local.tracker import NoTracker
from distributed_dd.backends.mlflow.tracker import MlflowTracker
from distributed_dd.backends.mlflow.views import LAST_CHOICE
from distributed_dd.backends.ray.cluster import RayCluster
from distributed_dd.backends.ray.tune_events import Reported
from distributed_dd.backends.ray.tune_search import TuneStudy
from distributed_dd.data.cache import silent
from distributed_dd.data.material import Material
from distributed_dd.durable import write_bytes, write_json, write_text
from distributed_dd.errors import ConfigError, UserError
from distributed_dd.evaluation.tables import percent
from distributed_dd.experiment import Experiment, experiment_of
from distributed_dd.experiment_run import Run
from distributed_dd.family import plain
from distributed_dd.interrupts import told_from_errors
from distributed_dd.locks import locked
from distributed_dd.nested import laid_over
from distributed_dd.outer.copies import Copies
from distributed_dd.outer.environment import environment
from distributed_dd.outer.judging import Judging
from distributed_dd.records import read_record, write_record
from distributed_dd.search import study as studies
from distributed_dd.search.study import Study
from distributed_dd.search.sweep import Population
from distributed_dd.sweeps import tables
from distributed_dd.sweeps.listening import Clock, StudyListener
from distributed_dd.sweeps.plan import Plan
from distributed_dd.sweeps.records import record_of
from distributed_dd.sweeps.results import write_best, write_report
from distributed_dd.sweeps.tracker import tracker_of_sweep
from distributed_dd.sweeps.trial import TrialJob, run_trial, trial_run

FIRST_FINAL_MEMBER = 3000
STUDY = "study"


@dataclass
class Sweeping:
    """A plan at work in its folder; the same call goes on where another was killed."""

    plan: Plan
    cluster: RayCluster
    progress: ConsoleProgress = field(default_factory=ConsoleProgress)
    tracker: MlflowTracker | NoTracker = field(default_factory=NoTracker)
    _ended: dict[str, str] = field(init=False, default_factory=dict)

    @property
    def folder(self) -> Path:
        """Everything of the sweep."""
        return self.plan.folder

    @cached_property
    def clock(self) -> Clock:
        """Hours taken."""
        return Clock(self.folder / "elapsed.json", self.plan.digest, self.plan.sweep.hours)

    def run(self) -> list[Study]:
        """Search, choose, test, report."""
        plan = self.plan
        with locked(self.folder, "sweep"):
            self.progress.log_to(self.folder / "log.txt")
            write_text(self.folder / "sweep.yaml", config.to_yaml(plain(plan.sweep)), private=True)
            write_json(self.folder / "environment.json", environment(), private=True)
            self.cluster.resources_of_a_task()
            self.tracker = tracker_of_sweep(plan, self.progress.say)
            status = "FAILED"
            try:
                with told_from_errors():
                    finished_studies = self._searched_and_tested()
                status = "FINISHED"
                return finished_studies
            except KeyboardInterrupt:
                status = "KILLED"
                raise
            finally:
                self.clock.note()
                self.tracker.settle_children(self._ended)
                self.tracker.end(status)
                self._copy()

    def _searched_and_tested(self) -> list[Study]:
        plan = self.plan
        finished_studies: list[Study] = []
        tests: dict[int, str] = {}
        for number, size in enumerate(plan.bases):
            finished_studies.append(self._study(size, len(plan.bases) - number))
            write_best(plan, finished_studies[-1])
            write_report(plan, finished_studies, tests, self.tracker)
        for study in finished_studies:
            if plan.sweep.test_winner and study.best:
                tests[study.images_per_class] = self._test(study)
                write_report(plan, finished_studies, tests, self.tracker)
        return finished_studies

    def _copy(self) -> None:
        """The report, beside the winners' runs, at the second place that the base names."""
        place = next(iter(self.plan.bases.values())).results
        if place is not None:
            Copies(self.folder, f"{place}/sweeps/{self.folder.name}", self.progress.say, deep=False).keep()

    def _tags(self, role: str) -> dict[str, str]:
        """The tracker's tags of a run that belongs to the sweep."""
        tags = {"sweep": self.folder.name, "role": role}
        return tags | ({"mlflow.parentRunId": self.tracker.run_id} if self.tracker.run_id else {})

    def _study(self, size: int, num_left: int) -> Study:
        """The study of one size, its winner chosen; read from its file where it was searched already."""
        done, left = self.folder / f"ipc{size}" / "study.json", self.clock.left()
        cut = done.with_name("cut")
        more = cut.exists() and (left is None or left > 0)
        if done.exists() and not more:
            record = read_record(done, STUDY, owner=self.plan.digest, needs={"trials": list, "rungs": list})
            study = Study.from_json(record)
            self._ended |= {
                t.run: "FINISHED" if t.status in ("finished", "stopped") else "FAILED" for t in study.trials
            }
            self.progress.say(f"{size} per class: already searched, {tables.verdict(study)}")
            return study
        job, material = self._prepared(size)
        reported = self._searched(size, job, material, num_left)
        trials = [record_of(job, number, one, material) for number, one in enumerate(reported)]
        located = self.plan.space.located(job.base)
        trials = [
            replace(t, base=located is not None and t.settings == job.space.settings(located, job.base)) for t in trials
        ]
        study = self._chosen(Study(size, job.rungs, tuple(trials)), reported, job, material)
        write_record(done, STUDY, self.plan.digest, study.as_json())
        self.progress.say(tables.verdict(study))
        return study

    def _prepared(self, size: int) -> tuple[TrialJob, Material]:
        """What trials share, made once for all, and the images as all of them see them."""
        plan, values = self.plan, self.plan.values(size)
        base = experiment_of(values)
        run = Run(experiment=base, cluster=self.cluster, progress=self.progress, varied=[*plan.space.dimensions])
        if run.prelude is not None and plan.space.touches(*base.method.shared_fields):
            self.progress.say(
                f"note: the space varies what the {run.prelude.stage} depend on; such trials train their own"
            )
        run.prepare()
        material = replace(run.material, say=silent)
        for name in ("fitted", "train", "validation"):
            getattr(material, name)  # once here, not in every trial
        rungs = plan.sweep.rungs(base.num_outer_steps)
        job = TrialJob(
            base=values,
            space=plan.space,
            rungs=rungs,
            networks=plan.sweep.networks(len(rungs)),
            below=self.folder / "trials",
            shared_digest=run.shared_digest,
            tags=self._tags("trial"),
            cluster=self.cluster if self.cluster.engine.bundles(self.cluster) else InProcess(),
            carries=isinstance(plan.search, Population),
        )
        return job, material

    def _searched(self, size: int, job: TrialJob, material: Material, num_left: int) -> list[Reported]:
        plan, left = self.plan, self.clock.left()
        located = plan.space.located(job.base)
        if located is None:
            self.progress.say(f"note: {size} per class: the base lies outside of the space: it is no trial")
        search = TuneStudy(
            folder=self.folder / f"ipc{size}" / "tune",
            coordinates=plan.space.coordinates(job.base),
            points=plan.points(size),
            fixed=located,
            search=plan.search,
            schedule=plan.sweep.schedule,
            rungs=job.rungs,
            num_trials=plan.num_trials(size),
            seed=plan.sweep.seed,
            max_concurrent=plan.sweep.max_concurrent,
        )
        self.progress.say(f"{size} per class: {search.num_trials} trials, scored after outer steps {list(job.rungs)}")

        def settings_line(point: Mapping[str, float]) -> str:
            return tables.settings_line(job.space.settings(point, job.base))

        def close(run: str, outcome: str, number: int) -> None:
            tags = {"outcome": outcome, "mlflow.runName": f"ipc{size} trial {number}"}
            self._ended[run] = "FINISHED" if outcome in ("finished", "stopped") else "FAILED"
            self.tracker.other(job.below / run / "tracker.json", status=self._ended[run], tags=tags)

        ends = None if left is None else self.clock.seconds() + max(left, 0) / num_left
        listener = StudyListener(
            proposals=self.folder / f"ipc{size}" / "order.json",
            owner=plan.digest,
            what=f"{size} per class",
            rungs=job.rungs,
            num_trials=search.num_trials,
            progress=self.progress,
            settings_line=settings_line,
            close=close,
            clock=self.clock,
            ends=ends,
        )
        cut = self.folder / f"ipc{size}" / "cut"
        if cut.exists() and not listener.out_of_time():
            search.set_aside()  # Tune takes what it stopped for finished
            cut.unlink()
        reported = search.run(run_trial, job, material, self.cluster, listener)
        # A trial that was being stopped may have opened its run once more.
        self.tracker.settle_children(self._ended)
        if listener.out_of_time():
            self.progress.say(
                f"{size} per class: its part of the hours is spent; with more hours= the same line goes on"
            )
            write_bytes(cut, b"")
        return reported

    def _chosen(self, study: Study, reported: list[Reported], job: TrialJob, material: Material) -> Study:
        """The last choice: finalists are scored by fresh networks, which had no part in choosing them."""
        contenders = studies.finalists(study.trials, self.plan.sweep.num_finalists)
        if not contenders:
            why = next((trial.message for trial in study.trials if trial.message), "none was scored in time")
            raise UserError(
                f"sweep {self.plan.name}",
                f"no trial of {study.images_per_class} per class could be scored: {why}",
                fix="narrow the space, or raise hours",
            )
        members = range(FIRST_FINAL_MEMBER, FIRST_FINAL_MEMBER + self.plan.sweep.final_networks)
        finals: dict[int, list[float]] = {}
        points = {number: one.point for number, one in enumerate(reported)}
        for trial in contenders:
            run = trial_run(job, points[trial.number], material)
            checkpoints = run.folder.checkpoints
            record = checkpoints.load()
            if record is None:
                raise UserError(str(checkpoints.folder), "holds no checkpoint of a trial that was scored")
            tensors = run.state(checkpoints.saved(record["newest"]))
            finals[trial.number] = run.validation_accuracies(tensors, members, self.cluster)
        decided = studies.chosen(study, finals)
        for trial in (trial for trial in decided.trials if trial.final):
            tracked = job.below / trial.run / "tracker.json"
            self.tracker.other(tracked, metrics={LAST_CHOICE: trial.final_mean})
        return decided

    def _test(self, study: Study) -> str:
        """Run the winner as anybody would, and say what its test was."""
        size, plan = study.images_per_class, self.plan
        assert study.best is not None
        values = plan.values(size)
        winner: Experiment = experiment_of(laid_over(values, study.best.settings))
        winner = replace(winner, output=plan.sweep.output, results=plan.bases[size].results)
        run = Run(
            experiment=winner,
            cluster=self.cluster,
            progress=ConsoleProgress(),
            tags=self._tags("run") | {"outcome": "winner"},
        )
        if isinstance(plan.search, Population):
            # Rates that changed on the way cannot be repeated from a file: the member's own set is tested.
            rungs = plan.sweep.rungs(winner.num_outer_steps)
            judging = Judging(rungs, plan.sweep.networks(len(rungs)))
            run = replace(run, below=self.folder / "trials", judging=judging)
        self.progress.say(f"{size} per class: the best configuration in {run.folder.path}")
        with run.opened() if not run.folder.report.exists() else nullcontext():
            run.prepare()
            run.distill()
            report = run.evaluate()
        row = next(row for row in report["rows"] if row["name"] == run.method.words.headline)
        accuracy = f"{percent(row)} %"
        self.tracker.summary({f"ipc{size} test_accuracy": row["accuracy_mean"]})
        self.progress.say(f"{size} per class: test accuracy of the best {accuracy}")
        return f"Test accuracy of the best, in {run.name}: {accuracy} over {row['num_networks']} networks."


def sweeping(plan: Plan, cluster: RayCluster | InProcess) -> Sweeping:
    """A plan on a cluster.

    Raises:
        ConfigError: the cluster cannot run trials.
    """
    if not isinstance(cluster, RayCluster):
        raise ConfigError("kind", "a sweep runs its trials by Ray Tune", allowed="ray")
    return Sweeping(plan, cluster)
