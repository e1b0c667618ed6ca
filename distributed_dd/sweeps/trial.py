"""One trial, in the process that a search gives it: a distillation in a run folder of its own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from distributed_dd.backends.local.cluster import InProcess
from distributed_dd.backends.local.console import ConsoleProgress
from distributed_dd.backends.ray.cluster import RayCluster
from distributed_dd.data.material import Material
from distributed_dd.errors import DivergedError, UserError
from distributed_dd.experiment import Experiment, experiment_of
from distributed_dd.experiment_run import Run
from distributed_dd.locks import locked_when_free
from distributed_dd.nested import laid_over
from distributed_dd.outer.checkpoint import KIND as CHECKPOINT
from distributed_dd.outer.judging import Judging
from distributed_dd.records import read_record, write_record
from distributed_dd.search.space import Space

LINEAGE, LINEAGE_KIND = "lineage.json", "lineage"


class Session(Protocol):
    """The connection of a trial to its search."""

    @property
    def donor_checkpoint(self) -> Path | None:
        """Folder of the checkpoint of another trial that this one goes on from."""
        ...

    def report(self, facts: Mapping[str, Any], checkpoint: Path | None = None) -> None:
        """Report a score; does not return where the trial is to stop."""
        ...


@dataclass(frozen=True, kw_only=True)
class TrialJob:
    """What all trials of a study share.

    Attributes:
        base: the base configuration as plain values.
        below: folder of the trials' run folders.
        shared_digest: of what was made beforehand, for all trials that use it.
        cluster: where a trial's own tasks run: its process, or ranks that it starts.
        carries: whether trials hand checkpoints on to each other.
    """

    base: dict[str, Any]
    space: Space
    rungs: tuple[int, ...]
    networks: tuple[int, ...]
    below: Path
    shared_digest: str
    tags: Mapping[str, str]
    cluster: RayCluster | InProcess = field(default_factory=InProcess)
    carries: bool = False

    def values(self, point: Mapping[str, float]) -> dict[str, Any]:
        """The configuration at ``point``, as plain values."""
        return laid_over(self.base, self.space.settings(point, self.base))

    def experiment(self, point: Mapping[str, float]) -> Experiment:
        """The configuration at ``point``."""
        return experiment_of(self.values(point))


def run_trial(point: Mapping[str, float], session: Session, job: TrialJob, material: Material) -> None:
    """Distil at ``point``, telling every score; goes on from what is in the run folder.

    An experiment that cannot be run, or diverges, is reported as a failed trial: the search goes on.
    """
    line = _Line(session, job)
    try:
        run = line.run = trial_run(job, point, material, Judging(job.rungs, job.networks, line.hear))
        with _held(run):
            if job.carries:
                _go_on_from(session.donor_checkpoint, run, job.space.settings(point, job.base))
            if warning := run.folder.checkpoints.recover()[1]:
                run.progress.say(warning)
            for step, accuracy in list(scores(run).items())[-1:]:
                line.hear(step, accuracy)  # a process that was killed may not have reported it
            if run.shared_digest != job.shared_digest:
                run.prepare()
            run.distill()
    except UserError as error:
        line.failed("diverged" if isinstance(error, DivergedError) else "failed", error)


@dataclass
class _Line:
    """Reports the scores and the failure of a trial to the search."""

    session: Session
    job: TrialJob
    run: Run | None = None
    reached: int = 0

    def hear(self, step: int, accuracy: float) -> None:
        """Report a score."""
        self.reached = step
        networks = self.job.networks[self.job.rungs.index(step)]
        self._report("scored", step, accuracy, networks)

    def failed(self, status: str, error: UserError) -> None:
        """Report a failure with the worst possible score, so that the search avoids such points."""
        self._report(status, self.job.rungs[-1], 0.0, 0, f"{error.where}: {error.problem}")

    def _report(self, status: str, step: int, accuracy: float, networks: int, message: str = "") -> None:
        folder = self.run.folder.checkpoints.folder if self.run and self.job.carries else None
        facts = {
            "outer_step": step,
            "validation_accuracy": accuracy,
            "num_networks": networks,
            "run": self.run.name if self.run else "",
            "status": status,
            "message": message,
            "reached": self.reached,
        }
        self.session.report(facts, folder if folder and folder.exists() else None)


def trial_run(job: TrialJob, point: Mapping[str, float], material: Material, judging: Judging | None = None) -> Run:
    """The run of the configuration at ``point``, as a trial; ``material`` is the base's."""
    e = job.experiment(point)
    base = experiment_of(job.base)
    same = e.data == base.data and e.preprocessing == base.preprocessing
    material_at_hand = material if same else None
    return Run(
        experiment=e,
        cluster=job.cluster,
        progress=ConsoleProgress(),
        below=job.below,
        material_at_hand=material_at_hand,
        judging=judging,
        tags=job.tags,
    )


def scores(run: Run) -> dict[int, float]:
    """Validation accuracy by outer step, as far as the run's newest checkpoint."""
    record = run.folder.checkpoints.load(verify=False)  # changes nothing: the trial may be at work on it
    return {} if record is None else {int(step): accuracy for step, accuracy in record["scores"].items()}


@contextmanager
def _held(run: Run) -> Iterator[None]:
    """Hold the run folder once it is free: a trial of the same settings, or of a dead driver, may hold it now."""
    with locked_when_free(run.folder.path, "run", run.progress.say):
        pass  # the run takes it again itself
    with run.opened():
        yield


def _go_on_from(donor: Path | None, run: Run, settings: Mapping[str, Any]) -> None:
    """Population-based training: begin where another trial is, with other settings; keep the lineage."""
    checkpoints = run.folder.checkpoints
    if checkpoints.exist:
        return
    step, lineage = 0, []
    if donor is not None:
        step = read_record(donor / checkpoints.latest.name, CHECKPOINT, needs={"step": int})["step"]
        lineage = read_record(donor / LINEAGE, LINEAGE_KIND, needs={"members": list})["members"]
    members = [*lineage, {"from_step": step, "settings": dict(settings)}]
    write_record(checkpoints.folder / LINEAGE, LINEAGE_KIND, checkpoints.config_digest, {"members": members})
    if donor is not None:
        checkpoints.adopt(donor)
