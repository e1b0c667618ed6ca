"""One experiment in its run folder: what all methods share."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from distributed_dd import config
from distributed_dd.backends.clusters import CLUSTERS
from distributed_dd.backends.console import ConsoleProgress
from distributed_dd.backends.engines import ENGINES
from distributed_dd.backends.in_process_cluster import InProcess
from distributed_dd.backends.mlflow_tracker import Description, MlflowTracker
from distributed_dd.backends.mlflow_views import runs_view
from distributed_dd.backends.no_tracker import NoTracker
from distributed_dd.backends.node_meters import metered
from distributed_dd.backends.ray_cluster import RayCluster
from distributed_dd.durable import digest, locked, read_json, write_bytes, write_json
from distributed_dd.errors import MissingInputError
from distributed_dd.family import flattened, identity, plain
from distributed_dd.stages import artefact, report, scoring
from distributed_dd.stages.checkpoint import Saved
from distributed_dd.stages.copies import Copies
from distributed_dd.stages.environment import environment
from distributed_dd.stages.estimate import Sharing
from distributed_dd.stages.experiment import Experiment
from distributed_dd.stages.footprint import Footprint, footprint
from distributed_dd.stages.judging import Judging
from distributed_dd.stages.material import Material, prepare
from distributed_dd.stages.names import headline
from distributed_dd.stages.ports import Cluster as Tasks
from distributed_dd.stages.run_folder import RunFolder

FIRST_VALIDATION_MEMBER = 2000
Tensors = dict[str, Tensor]


@dataclass
class Run(ABC):
    """One experiment in its run folder; stages are called in order, each skips what is done.

    Args:
        below: where the run folder lies; the experiment's output by default.
        given: the experiment's images, where they are at hand.
        judging: when what is unfinished is scored; as the experiment's evaluation says by default.
        tags: told to the tracker beside the run's own.
        epochs: of experts, to be kept beside those that the experiment reads.
    """

    experiment: Experiment
    cluster: RayCluster | InProcess
    progress: ConsoleProgress = field(default_factory=ConsoleProgress)
    below: Path | None = None
    given: Material | None = None
    judging: Judging | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    epochs: Sequence[float] = ()
    costs: dict[str, Footprint] = field(default_factory=dict)

    shared_stage: ClassVar[str]
    """What the stage before the distillation is called, whose result runs share."""
    shared_tag: ClassVar[str]
    """The tag that tells a tracker which it was."""
    headline_row: ClassVar[str]
    """The row of the report by which the run is known."""
    losses: ClassVar[tuple[str, ...]]
    """Metrics that people watch, of which every outer step has the first."""
    picture: ClassVar[str]
    """What pictures on the way are called."""
    columns: ClassVar[tuple[str, ...]]
    """Parameters by which runs are compared."""

    def __post_init__(self) -> None:
        e = self.experiment
        self.material: Material = self.given or prepare(
            e.data, e.preprocessing, e.images_per_class, self.progress.say
        )
        splits = self.material.splits
        self.num_classes = splits.num_classes
        self.begin()
        self.digest = digest({**identity(e), "data_sha256": splits.sha256, **self.given_digest()})
        self.name = f"{splits.name}-{e.method.name}-ipc{e.images_per_class}-{self.digest[:8]}"
        self.folder = RunFolder((self.below or Path(e.output)) / self.name, self.digest)
        self.check()
        self.tracker: MlflowTracker | NoTracker = NoTracker()
        self.copies = None
        if e.results is not None:
            self.copies = Copies(self.folder.path, f"{e.results.rstrip('/')}/{self.name}", self.progress.say)

    @abstractmethod
    def begin(self) -> None:
        """Find where what runs share lies."""

    def given_digest(self) -> dict[str, Any]:
        """What decides about the result beside the configuration and the data."""
        return {}

    @abstractmethod
    def check(self) -> None:
        """Refuse, before anything starts, what cannot be done."""

    @property
    @abstractmethod
    def shared_digest(self) -> str:
        """Of what the stage before the distillation makes."""

    @abstractmethod
    def prepare(self, for_use: bool = True) -> None:
        """Make what is missing of what runs share; it is verified where it is to be used."""

    @abstractmethod
    def distill(self) -> None:
        """Distil and write the artefacts, unless they are there."""

    @abstractmethod
    def rows(self) -> tuple[list[dict[str, Any]], int]:
        """The rows of the report, scored on the test split, and the most bytes that a task held."""

    @abstractmethod
    def verify(self) -> None:
        """Open the artefacts.

        Raises:
            IntegrityError: one is not what was written.
        """

    @abstractmethod
    def state(self, saved: Saved) -> Tensors:
        """What is scored of a checkpoint."""

    @abstractmethod
    def validation_accuracies(self, tensors: Tensors, members: Iterable[int], cluster: Tasks) -> list[float]:
        """What fresh networks of these numbers, trained on a checkpoint's state, reach on validation."""

    @abstractmethod
    def present(self) -> str:
        """What is there of what runs share, in a line."""

    @abstractmethod
    def estimate(self, asked: Sharing | None) -> Iterator[str]:
        """Memory, disk and work, a line a topic."""

    def more_for_the_report(self) -> dict[str, Any]:
        """What the report says beside what all say."""
        return {}

    def bring(self) -> None:
        """Fetch the run folder from where it was copied to, if it is not here."""
        if self.copies is not None and self.copies.bring():
            self.progress.say(f"fetched what is known of this run from {self.copies.place}")

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the run folder, freeze the configuration into it, and close the tracker however it ends."""
        e, path = self.experiment, self.folder.path
        if e.resume == "never" and (aside := self.folder.set_aside()):
            self.progress.say(f"the previous run was kept as {aside}")
        if e.resume == "must" and not self.folder.checkpoints.latest.exists():
            raise MissingInputError(str(path), "holds no checkpoint, and resume=must", fix="resume=auto")
        self.bring()
        if not (self.folder.distilled / artefact.MANIFEST).exists():
            # Before the experts, which may take days.
            self.cluster.engine.refuse_without_room(self.cluster)
        with locked(path, "run"):
            self.progress.log_to(self.folder.log)
            for note in self.material.splits.notes:
                self.progress.say(f"note on {self.material.splits.name}: {note}")
            write_bytes(path / "resolved.yaml", config.to_yaml(plain(e)).encode())
            where = {"kind": CLUSTERS.kind_of(self.cluster), **plain(self.cluster)}
            write_bytes(path / "cluster.yaml", config.to_yaml(where).encode())
            write_json(path / "environment.json", environment())
            if self.copies is not None:
                self.copies.begin()
            self.tracker = self._tracker()
            status = "FAILED"
            try:
                with metered(self.tracker.system) if e.tracker == "mlflow" else nullcontext():
                    yield
                status = "FINISHED"
            except SystemExit:  # a search ends a trial so; the trial did nothing wrong
                status = "FINISHED"
                raise
            except KeyboardInterrupt:
                status = "KILLED"
                raise
            finally:
                self.tracker.end(status)
                if self.copies is not None:
                    self.copies.keep()

    def _tracker(self) -> MlflowTracker | NoTracker:
        e = self.experiment
        if e.tracker == "none":
            return NoTracker()
        tags = {
            "dataset": e.data.name, "method": e.method.name, "images_per_class": str(e.images_per_class),
            "seed": str(e.seed), "data_sha256": self.material.splits.sha256, "run_folder": self.name,
            "config_digest": self.digest, self.shared_tag: self.shared_digest,
            "engine": str(self.cluster.engine), "role": "run", **self.tags,
        }  # fmt: skip
        splits, values = self.material.splits, plain(e)
        told = Description(
            f"distributed_dd/{e.data.name}/{e.method.name}", self.name,
            {**dict(flattened(values)), **headline(values)}, tags,
            {"name": splits.name, "sha256": splits.sha256, "train": len(splits.train),
             "validation": len(splits.validation), "test": len(splits.test)},
            self.losses[0], self.picture,
        )  # fmt: skip
        tracker = MlflowTracker(Path(e.output) / "mlflow.db", self.folder.tracked, told, self.progress.say)
        tracker.view(runs_view(e.num_outer_steps, self.losses, self.headline_row, self.picture, self.columns))
        return tracker

    @contextmanager
    def timed(self, stage: str) -> Iterator[Footprint]:
        """Record what a stage cost."""
        with footprint() as self.costs[stage]:
            yield self.costs[stage]

    def _remembered(self, stage: str, worked: bool) -> None:
        """Keep what a stage cost for the process that writes the report, which may be a later one."""
        path = self.folder.costs
        known = read_json(path) if path.exists() else {}
        if worked or stage not in known:
            known[stage] = [self.costs[stage].seconds, self.costs[stage].peak_bytes]
            if self.folder.path.exists():
                write_json(path, known)
        self.costs[stage] = Footprint(*known[stage])

    def validation_accuracy(self, tensors: Tensors, num_networks: int, cluster: Tasks) -> float:
        """The mean over so many networks."""
        members = range(FIRST_VALIDATION_MEMBER, FIRST_VALIDATION_MEMBER + num_networks)
        found = self.validation_accuracies(tensors, members, cluster)
        return sum(found) / len(found)

    def scored_on_validation(self, trials: Sequence[scoring.Trial], cluster: Tasks) -> list[float]:
        """Accuracies on the validation split."""
        e = self.experiment
        judge = self.material.validation
        contest = scoring.Contest(e.network, e.evaluate.recipe(), e.seed, self.num_classes, judge)
        return [outcome.accuracy for outcome in scoring.score(trials, contest, cluster)]

    def judged(self) -> Judging:
        """When the unfinished is scored."""
        e = self.experiment
        return self.judging or Judging.every(
            e.evaluate.every, e.num_outer_steps, e.evaluate.num_validation_networks,
            lambda step, accuracy: self.copies and self.copies.keep(),
        )  # fmt: skip

    def facts_of(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Facts about a distillation, with who did it."""
        engine = self.cluster.engine
        return {**facts, "engine": {"kind": ENGINES.kind_of(engine), **plain(engine)}}

    def evaluate(self) -> dict[str, Any]:
        """Score the result and its controls on the test split, unless that was done."""
        if self.folder.report.exists():
            self.verify()
            return read_json(self.folder.report)
        e, distilled = self.experiment, self.folder.distilled
        with self.timed("evaluate") as cost:
            rows, peak = self.rows()
        cost.peak_bytes = max(cost.peak_bytes, peak)
        manifest = read_json(distilled / artefact.MANIFEST)
        facts = manifest["distillation"]
        self.costs["distill"] = Footprint(round(facts["seconds"], 2), facts["peak_memory_bytes"])
        costs = {stage: self.costs[stage] for stage in (self.shared_stage, "distill", "evaluate")}
        num_test = len(self.material.splits.test)
        result = report.assemble(e, rows, costs, manifest, num_test) | self.more_for_the_report()
        write_bytes(self.folder.report_page, report.page(result).encode())
        write_json(self.folder.report, result)
        self.tracker.report(result)
        names = ("resolved.yaml", "environment.json", "log.txt")
        paths = (self.folder.report, self.folder.report_page, *(self.folder.path / name for name in names))
        for path in (*self.artefacts(), *paths):
            self.tracker.artefact(path)
        return result

    def artefacts(self) -> list[Path]:
        """Folders that a tracker keeps with the run."""
        return [self.folder.distilled]
