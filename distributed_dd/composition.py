"""From a configuration to running objects: the one place that names a stage and a backend together."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from distributed_dd import config
from distributed_dd.backends.console import ConsoleProgress
from distributed_dd.backends.engines import ENGINES
from distributed_dd.backends.in_process_cluster import InProcess
from distributed_dd.backends.mlflow_tracker import Description, MlflowTracker
from distributed_dd.backends.mlflow_views import runs_view
from distributed_dd.backends.no_tracker import NoTracker
from distributed_dd.backends.node_meters import metered
from distributed_dd.backends.ray_cluster import RayCluster
from distributed_dd.distillation.networks import NETWORKS
from distributed_dd.durable import digest, locked, read_json, write_bytes, write_json
from distributed_dd.errors import ConfigError, MissingInputError
from distributed_dd.family import Family, build, build_member, flattened, identity, plain
from distributed_dd.stages import artefact, experts, report, scoring
from distributed_dd.stages.copies import Copies
from distributed_dd.stages.distill import Distillation
from distributed_dd.stages.environment import environment
from distributed_dd.stages.evaluate import Entry, candidates, score_rows
from distributed_dd.stages.experiment import Experiment
from distributed_dd.stages.expert import ExpertJob
from distributed_dd.stages.footprint import Footprint, footprint
from distributed_dd.stages.judging import Judging
from distributed_dd.stages.material import Material, prepare
from distributed_dd.stages.names import headline
from distributed_dd.stages.ports import Cluster as Tasks
from distributed_dd.stages.preview import preview_png
from distributed_dd.stages.run_folder import RunFolder
from distributed_dd.stages.selection import Jury, starting_set
from distributed_dd.stages.worker import Job
from distributed_dd.trajectories.store import TrajectoryStore

CLUSTERS = Family("cluster", {"ray": RayCluster, "in_process": InProcess})


def experiment_from(path: Path, overrides: list[str]) -> Experiment:
    """The experiment that a file and overrides describe."""
    values = config.read(path, overrides)
    if "space" in values:
        raise ConfigError(str(path), "is a sweep file", fix=f"distributed-dd tune {path}")
    return build(Experiment, values)


def cluster_from(path: Path | None) -> RayCluster | InProcess:
    """Where tasks run: what the cluster file says, or a local Ray."""
    return RayCluster() if path is None else build_member(CLUSTERS, config.read(path), str(path))


@dataclass
class Run:
    """One experiment in its run folder; stages are called in order, each skips what is done.

    Args:
        below: where the run folder lies; the experiment's output by default.
        given: the experiment's images, where they are at hand.
        judging: when the unfinished set is scored; as the experiment's evaluation says by default.
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

    def __post_init__(self) -> None:
        e = self.experiment
        self.material: Material = self.given or prepare(
            e.data, e.preprocessing, e.images_per_class, self.progress.say
        )
        splits = self.material.splits
        data = experts.identity_of(self.material, e.preprocessing)
        self.needed = tuple(sorted({*e.method.epochs_used(e.experts.num_epochs), *self.epochs}))
        if e.experts.store is None:
            root = e.experts.storage or str(Path(e.output) / "experts")
            self.store = experts.store_for(root, e.experts, e.network, data, e.seed)
        else:
            self.store = TrajectoryStore.at(e.experts.store)
        given = {} if e.experts.store is None else {"expert_store": self.store.digest}
        self.digest = digest({**identity(e), "data_sha256": splits.sha256, **given})
        self.name = f"{splits.name}-{e.method.name}-ipc{e.images_per_class}-{self.digest[:8]}"
        self.folder = RunFolder((self.below or Path(e.output)) / self.name, self.digest)
        self.num_classes = splits.num_classes
        self.job = Job(
            e.method, e.seed, e.experts.num_experts, e.network, splits.image_shape, self.num_classes,
            self.store, self.folder.absolute().checkpoints,
        )  # fmt: skip
        self.cluster.engine.check(e.method, e.images_per_class * self.num_classes, self.job.student.network)
        self.tracker: MlflowTracker | NoTracker = NoTracker()
        self.copies = None
        if e.results is not None:
            self.copies = Copies(self.folder.path, f"{e.results.rstrip('/')}/{self.name}", self.progress.say)

    @cached_property
    def jury(self) -> Jury:
        """The stored experts, asked about images."""
        e = self.experiment
        return Jury(self.store, e.experts.num_experts, e.network, self.material.train, self.num_classes)

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
            "config_digest": self.digest, "expert_store": self.store.digest,
            "engine": str(self.cluster.engine), "role": "run", **self.tags,
        }  # fmt: skip
        splits, values = self.material.splits, plain(e)
        told = Description(
            f"distributed_dd/{e.data.name}/{e.method.name}", self.name,
            {**dict(flattened(values)), **headline(values)}, tags,
            {"name": splits.name, "sha256": splits.sha256, "train": len(splits.train),
             "validation": len(splits.validation), "test": len(splits.test)},
        )  # fmt: skip
        tracker = MlflowTracker(Path(e.output) / "mlflow.db", self.folder.tracked, told, self.progress.say)
        tracker.view(runs_view(e.num_outer_steps))
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

    def train_experts(self, for_use: bool = True) -> None:
        """Train the experts that are missing; those that are to be used are opened and verified."""
        e, material = self.experiment, self.material
        job = ExpertJob(
            e.experts, e.network, e.seed, material.train, material.validation, self.num_classes, self.store,
            self.needed,
        )  # fmt: skip
        trained: list[int] = []
        with self.timed("experts") as cost:
            peak = 0
            if e.experts.store is None:
                trained, peak = experts.train_experts(job, self.cluster, self.progress)
            else:
                experts.check_complete(self.store, e.experts.num_experts)
            if for_use or e.experts.store is not None:
                experts.verify(
                    self.store, e.experts.num_experts, self.job.student.num_parameters, self.needed
                )
        cost.peak_bytes = max(cost.peak_bytes, peak)
        self._remembered("experts", bool(trained))
        reused = e.experts.num_experts - len(trained)
        self.progress.say(f"experts: {len(trained)} trained, {reused} reused from {self.store.folder}")
        if line := experts.summary(self.store, e.experts.num_experts)[0]:
            self.progress.say(f"experts: {line}")

    def distill(self) -> None:
        """Distil the set and write the artefact, unless it is there."""
        e = self.experiment
        if (self.folder.distilled / artefact.MANIFEST).exists():
            artefact.load_distilled(self.folder.distilled)  # verifies
            self.progress.say(f"distilled set: already in {self.folder.distilled}")
            return
        engine = self.cluster.engine

        def starting() -> dict[str, Tensor]:
            return starting_set(e.method, self.jury, e.images_per_class, e.seed)

        def show(step: int, start: dict[str, Tensor], tensors: dict[str, Tensor], note: str = "") -> None:
            path = self._preview(start["images"], tensors, f"outer step {step}{note}")
            if not note:
                self.tracker.picture("synthetic_set", step, path)

        judging = self.judging or Judging.every(
            e.evaluate.every, e.num_outer_steps, e.evaluate.num_validation_networks,
            lambda step, accuracy: self.copies and self.copies.keep(),
        )  # fmt: skip
        distillation = Distillation(
            e.num_outer_steps, judging, e.checkpoint_every, e.method.ema_decay is not None, starting,
            engine.workers(self.job, self.cluster, self.folder.absolute().rank_logs), self.folder,
            self.tracker, self.progress, self._validation_accuracy, show, engine.max_restarts,
        )  # fmt: skip
        with self.timed("distill"):
            best, last, facts = distillation.run()
            facts["engine"] = {"kind": ENGINES.kind_of(engine), **plain(engine)}
            show(facts["best_step"], distillation.start(), best, ", chosen on validation")
        manifest = artefact.describe(e, self.material.splits, self.digest, self.store.digest, facts)
        artefact.write_artefact(self.folder.distilled, best, last, self.material.fitted, manifest)

    def validation_accuracies(
        self, tensors: dict[str, Tensor], members: Iterable[int], cluster: Tasks
    ) -> list[float]:
        """What fresh networks of these numbers, trained on a set, reach on the validation split."""
        e = self.experiment
        judge = self.material.validation
        contest = scoring.Contest(e.network, e.evaluate.recipe(), e.seed, self.num_classes, judge)
        given = (tensors["images"], tensors["labels"], float(tensors["learning_rate"]))
        outcomes = scoring.score([scoring.Trial(*given, member) for member in members], contest, cluster)
        return [outcome.accuracy for outcome in outcomes]

    def _validation_accuracy(self, tensors: dict[str, Tensor], num_networks: int, cluster: Tasks) -> float:
        found = self.validation_accuracies(tensors, range(2000, 2000 + num_networks), cluster)
        return sum(found) / len(found)

    def _preview(self, starting: Tensor, tensors: dict[str, Tensor], title: str) -> Path:
        invert, names = self.material.fitted.invert, self.material.splits.class_names
        png = preview_png(invert(starting), invert(tensors["images"]), tensors["classes"], names, title)
        path = self.folder.distilled / artefact.PREVIEW
        write_bytes(path, png)
        return path

    def evaluate(self) -> dict[str, Any]:
        """Score the set and its controls on the test split, unless that was done."""
        if self.folder.report.exists():
            artefact.load_distilled(self.folder.distilled)  # verifies what it reports about
            return read_json(self.folder.report)
        e, distilled = self.experiment, self.folder.distilled
        with self.timed("evaluate") as cost:
            entry = Entry(
                artefact.load_distilled(distilled), artefact.load_last_step(distilled),
                self.jury.soft_labels(e.method.labels), e.images_per_class, e.seed,
            )  # fmt: skip
            rows, peak = score_rows(
                candidates(entry, self.material, e.evaluate), e.network, e.evaluate, e.seed, self.material,
                self.cluster, self.progress,
            )  # fmt: skip
            experts_alone = self.jury.accuracies(self.material.test)
            rows.append(scoring.row("expert", NETWORKS.kind_of(e.network), "hard", experts_alone))
        cost.peak_bytes = max(cost.peak_bytes, peak)
        manifest = read_json(distilled / artefact.MANIFEST)
        facts = manifest["distillation"]
        self.costs["distill"] = Footprint(round(facts["seconds"], 2), facts["peak_memory_bytes"])
        result = report.assemble(e, rows, self.costs, manifest, len(self.material.splits.test))
        write_bytes(self.folder.report_page, report.page(result).encode())
        write_json(self.folder.report, result)
        self.tracker.report(result)
        names = ("resolved.yaml", "environment.json", "log.txt")
        paths = (self.folder.report, self.folder.report_page, *(self.folder.path / name for name in names))
        for path in (distilled, *paths):
            self.tracker.artefact(path)
        return result
