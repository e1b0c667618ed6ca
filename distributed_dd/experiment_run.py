"""One experiment in its run folder, whatever its method."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from distributed_dd import config
from distributed_dd.backends.clusters import CLUSTERS
from distributed_dd.backends.local.cluster import InProcess
from distributed_dd.backends.local.console import ConsoleProgress
from distributed_dd.backends.local.tracker import NoTracker
from distributed_dd.backends.mlflow.tracker import MlflowTracker
from distributed_dd.backends.ray.cluster import RayCluster
from distributed_dd.backends.ray.node_meters import metered
from distributed_dd.crew import RunCrew
from distributed_dd.data.material import Material, prepare, refuse_without_images
from distributed_dd.durable import digest, read_json, write_bytes, write_json, write_text
from distributed_dd.errors import MissingInputError, UserError
from distributed_dd.evaluation import artefact, fits, learned, protocols, report, scoring
from distributed_dd.evaluation.controls import controls_of, has_room, refuse_blind
from distributed_dd.evaluation.product import Product, Tensors
from distributed_dd.evaluation.scored import Scored
from distributed_dd.evaluation.teacher import teacher_of
from distributed_dd.experiment import Experiment, identity_of, values_of
from distributed_dd.facets import about, described, estimate_lines, scale_of, world_of
from distributed_dd.family import plain
from distributed_dd.interrupts import told_from_errors
from distributed_dd.locks import locked
from distributed_dd.outer.checkpoint import Saved
from distributed_dd.outer.copies import Copies
from distributed_dd.outer.costs import Costs
from distributed_dd.outer.environment import environment
from distributed_dd.outer.footprint import Footprint
from distributed_dd.outer.frozen_rows import check_frozen
from distributed_dd.outer.judging import Judging
from distributed_dd.outer.loop import Distillation, Subject
from distributed_dd.outer.method import Method
from distributed_dd.outer.ports import Cluster as Tasks
from distributed_dd.outer.prelude import Prelude
from distributed_dd.outer.run_folder import RunFolder
from distributed_dd.outer.sharing import Sharing
from distributed_dd.outer.world import World
from distributed_dd.places import name_in_path
from distributed_dd.records import seal_of

FIRST_VALIDATION_MEMBER = 2000


@dataclass(kw_only=True)
class Run:
    """One experiment in its run folder; stages are called in order, each skips what is done.

    Attributes:
        below: where the run folder lies; the experiment's output by default.
        material_at_hand: the experiment's images, where they are loaded already.
        judging: when the unfinished result is scored; by default as the experiment's evaluation says.
        tags: told to the tracker beside the run's own.
        varied: the fields that a sweep varies, whose trials share the prelude.
    """

    experiment: Experiment
    cluster: RayCluster | InProcess
    progress: ConsoleProgress = field(default_factory=ConsoleProgress)
    below: Path | None = None
    material_at_hand: Material | None = None
    judging: Judging | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    varied: Collection[str] = ()

    def __post_init__(self) -> None:
        e = self.experiment
        self.material: Material = self.material_at_hand or prepare(
            e.data, e.preprocessing, e.images_per_class, self.progress.say
        )
        splits, world = self.material.splits, world_of(e, self.material)
        pictures = e.set.form.pictures(world.image_shape)
        refuse_without_images(splits, e.images_per_class, pictures)
        self.prelude: Prelude | None = e.method.prelude(world, self.varied)
        self.world: World = world.with_shared(self.prelude)
        named_store = self.prelude.given_digest() if self.prelude else {}
        self.digest = digest({**identity_of(e), "data_sha256": splits.sha256, **named_store})
        names = name_in_path(splits.name), name_in_path(e.method.name)
        self.name = f"{'-'.join(names)}-ipc{e.images_per_class}-{self.digest[:8]}"
        self.folder = RunFolder((self.below or Path(e.output)) / self.name, self.digest)
        self.costs = Costs(self.folder.costs, self.digest)
        e.method.check(self.world)
        check_frozen(self.world)
        refuse_blind(e.evaluate.controls, self.prelude.views if self.prelude else ())
        self.cluster.engine.check(replace(e.method.division(self.world), pictures=pictures))
        self.tracker: MlflowTracker | NoTracker = NoTracker()
        self.copies = None
        if e.results is not None:
            self.copies = Copies(self.folder.path, f"{e.results.rstrip('/')}/{self.name}", self.progress.say)

    @property
    def method(self) -> Method:
        """The method of the experiment."""
        return self.experiment.method

    @cached_property
    def product(self) -> Product:
        """The result in the run folder, and how it is written, read and scored."""
        return self.method.product(self.world, self.folder.path)

    @property
    def shared_digest(self) -> str:
        """The digest of the prelude; empty where runs share nothing."""
        return self.prelude.digest if self.prelude else ""

    def present(self) -> str | None:
        """How much of the prelude exists, in a line; None without a prelude."""
        return self.prelude.present() if self.prelude else None

    def estimate(self, asked: Sharing | None) -> Iterator[str]:
        """Memory, disk and work, a line a topic."""
        missing = self.prelude.missing() if self.prelude else None
        return estimate_lines(self.experiment, scale_of(self.experiment, self.material.splits.facts, asked, missing))

    def bring(self) -> None:
        """Fetch the run folder from where it was copied to, if it is not here."""
        if self.copies is not None and self.copies.bring():
            self.progress.say(f"fetched what is known of this run from {self.copies.place}")

    @property
    def is_distilled(self) -> bool:
        """Whether the result is there."""
        return (self.folder.distilled / artefact.MANIFEST).exists()

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the run folder, freeze the configuration into it, and close the tracker however it ends."""
        e, path = self.experiment, self.folder.path
        anew = e.resume == "never"
        if anew:
            self._set_aside()
        else:
            self.bring()
        if e.resume == "must" and not self.folder.checkpoints.exist:
            raise MissingInputError(str(path), "holds no checkpoint, and resume=must", fix="resume=auto")
        if not self.is_distilled:
            # Before the prelude, which may take days.
            self.cluster.engine.refuse_without_room(self.cluster)
        with locked(path, "run"):
            self.progress.log_to(self.folder.log)
            for note in self.material.splits.notes:
                self.progress.say(f"note on {self.material.splits.name}: {note}")
            for note in (
                () if self.is_distilled else (*e.method.notes(self.world), *protocols.notes(e.evaluate.protocol))
            ):
                self.progress.say(note)
            write_text(path / "resolved.yaml", config.to_yaml(values_of(e)), private=True)
            where = {"kind": CLUSTERS.kind_of(self.cluster), **plain(self.cluster)}
            write_text(path / "cluster.yaml", config.to_yaml(where), private=True)
            write_json(path / "environment.json", environment(), private=True)
            if self.copies is not None:
                self.copies.begin(anew)
            shared = {self.prelude.tag: self.prelude.digest} if self.prelude else {}
            self.tracker = self._crew.tracking.of_run(self.folder, self.name, {**shared, **self.tags})
            status = "FAILED"
            try:
                metering = metered(self.tracker.system) if e.tracker == "mlflow" else nullcontext()
                with told_from_errors(), metering:
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

    def _set_aside(self) -> None:
        """Keep what is in the run folder under another name, unless another process works in it."""
        if not self.folder.path.exists():
            return
        with locked(self.folder.path, "run"):
            aside = self.folder.set_aside()
        self.progress.say(f"the previous run was kept as {aside}")

    @property
    def is_finished(self) -> bool:
        """Whether the report is there, with all controls that are asked for."""
        return self.folder.report.exists() and not self._missing_controls()

    def _missing_controls(self) -> list[str]:
        """Controls that are asked for now, and were not when the report was written."""
        try:
            names = {row["name"] for row in read_json(self.folder.report)["rows"]}
        except (UserError, LookupError, TypeError):
            return []  # whoever opens the report says what is wrong with it
        asked = self.experiment.evaluate.controls if has_room(self.world, self.world.stored_per_class) else ()
        return [rule for rule in asked if rule not in names]

    def report(self) -> dict[str, Any]:
        """The report of the finished run, which belongs to its result.

        Raises:
            IntegrityError: result or report is not what was written, or is another run's.
        """
        self.verify()
        fix = f"delete it and run the same command: {self.folder.distilled.parent} is evaluated again"
        return report.read(self.folder.report, self.digest, seal_of(self._manifest()), fix)

    def settle(self) -> None:
        """For a finished run: complete its copy, and close its run in the tracker, where a kill came between."""
        self._crew.tracking.settle(self.folder)
        if self.copies is not None:
            self.copies.complete()

    def _manifest(self) -> dict[str, Any]:
        return artefact.manifest_of(self.folder.distilled, self.digest)

    @property
    def _crew(self) -> RunCrew:
        return RunCrew(self.experiment, self.material.splits, self.cluster, self.progress)

    def prepare(self, for_use: bool = True) -> None:
        """Make what is missing of what runs share; it is verified where it is to be used."""
        if self.prelude is None:
            return
        stage = self.prelude.stage
        with self.costs.timed(stage) as cost:
            outcome = self.prelude.make(self._crew, for_use)
        cost.peak_bytes = max(cost.peak_bytes, outcome.peak_bytes)
        if outcome.cost is not None:
            self.costs[stage] = outcome.cost
        else:
            self.costs.remember(stage, outcome.worked)

    def distill(self) -> None:
        """Distil and write the result, unless it is there."""
        e, product, folder = self.experiment, self.product, self.folder.absolute()
        if self.is_distilled:
            self.verify()
            self.progress.say(f"{e.method.name}: already distilled, in {product.folders[0]}")
            return
        crew, job = self._crew, e.method.job(self.world, folder.checkpoints)
        distillation = Distillation(
            num_outer_steps=e.num_outer_steps,
            judging=self._judging(),
            checkpoint_every=e.checkpoint_every,
            subject=self._subject(),
            workers=crew.workers(job, folder.rank_logs),
            folder=self.folder,
            tracker=self.tracker,
            progress=self.progress,
            max_restarts=crew.max_restarts,
        )
        with self.costs.timed("distill"):
            best, last, facts = distillation.run()
            product.write(best, last, distillation.start(), crew.facts_of(facts), self._described)

    def _subject(self) -> Subject:
        method, product = self.method, self.product
        return Subject(
            starting=product.starting,
            read=product.read,
            show=self._show,
            score=self.validation_accuracy,
            noted=method.words.noted,
            count=method.count,
            no_facts=method.no_facts,
        )

    def _show(self, step: int, start: Tensors, tensors: Tensors) -> None:
        path = self.product.folders[0] / artefact.PREVIEW
        write_bytes(path, self.product.picture(start, tensors, f"outer step {step}"))
        self.tracker.picture(self.method.words.picture, step, path)

    def _judging(self) -> Judging:
        """After which outer steps the unfinished result is scored, and by how many networks."""
        e = self.experiment
        return self.judging or Judging.every(
            e.evaluate.every,
            e.num_outer_steps,
            e.evaluate.num_validation_networks,
            lambda step, accuracy: self.copies and self.copies.keep(),
        )

    def _described(self, facts: dict[str, Any]) -> dict[str, Any]:
        """The manifest of the result."""
        return described(self.experiment, self.material, self.digest, self.prelude, facts)

    def state(self, saved: Saved) -> Tensors:
        """The part of a checkpoint that is scored."""
        return self.product.read(saved)

    def validation_accuracies(self, tensors: Tensors, members: Iterable[int], cluster: Tasks) -> list[float]:
        """What fresh networks of these numbers, trained on a checkpoint's state, reach on validation."""
        e = self.experiment
        judge = self.material.validation
        contest = fits.Contest(
            network=e.network,
            recipe=e.evaluate.recipe(self.world.num_classes, self.world.num_images),
            seed=e.seed,
            num_classes=self.world.num_classes,
            judge=judge,
            teacher=teacher_of(e.network, e.evaluate, e.seed, self.material, cluster, self.progress),
        )
        trials = self.product.fits(tensors, members)
        return [max(0.0, outcome.accuracy) for outcome in fits.score(trials, contest, cluster)]

    def validation_accuracy(self, tensors: Tensors, num_networks: int, cluster: Tasks) -> float:
        """The mean accuracy on validation over so many fresh networks."""
        members = range(FIRST_VALIDATION_MEMBER, FIRST_VALIDATION_MEMBER + num_networks)
        accuracies = self.validation_accuracies(tensors, members, cluster)
        return sum(accuracies) / len(accuracies)

    def verify(self) -> None:
        """Open the result and compare it with its checksums.

        Raises:
            IntegrityError: a file is not what was written (SHA-256 differs), or is another run's.
        """
        for folder in self.product.folders:
            artefact.manifest_of(folder, self.digest)
        self.product.verify()

    def evaluate(self) -> dict[str, Any]:
        """Score the result and its controls on the test split, unless that was done."""
        if self.is_finished:
            return self.report()
        with self.costs.timed("evaluate") as cost:
            rows, peak = self._scored()
        cost.peak_bytes = max(cost.peak_bytes, peak)
        manifest = self._manifest()
        facts = manifest["distillation"]
        self.costs["distill"] = Footprint(round(facts["seconds"], 2), facts["peak_memory_bytes"])
        shared = [self.prelude.stage] if self.prelude else []
        costs = {stage: self.costs[stage] for stage in (*shared, "distill", "evaluate")}
        num_test = len(self.material.splits.test)
        result = report.assemble(about(self.experiment, self.world), rows, costs, manifest, num_test)
        result |= {"bytes_per_class": self.product.bytes_per_class()} | self.product.more_for_the_report()
        loss, loss_title = next(iter(self.method.words.losses.items()))
        changed = learned.changes(self.folder.metrics.read(), loss, self.product.unchanged())
        result |= changed | ({"loss_title": loss_title} if changed else {})
        result["metrics_sha256"] = facts.get("metrics_sha256", "")
        page = report.page(result, self.method.words.rows)
        write_text(self.folder.report_page, page)
        report.write(self.folder.report, self.digest, seal_of(manifest), result)
        self.tracker.report(result, page)
        names = ("resolved.yaml", "environment.json", "log.txt")
        paths = (self.folder.report, self.folder.report_page, *(self.folder.path / name for name in names))
        for path in (*self.product.folders, *paths):
            self.tracker.artefact(path)
        return result

    def _scored(self) -> tuple[list[dict[str, Any]], int]:
        """The rows of the report, scored on the test split, and the most bytes that a task held."""
        e, product = self.experiment, self.product
        scored = Scored(self.folder.scored, seal_of(self._manifest()))
        rows, peak = scoring.score_rows(
            product.rows(controls_of(self.world, self.cluster, self.progress)),
            e.network,
            e.evaluate,
            e.seed,
            self.material,
            self.cluster,
            self.progress,
            scored,
        )
        return [*map(product.finished, rows), *product.ready_rows()], peak
