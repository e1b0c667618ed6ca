"""A run of trajectory matching: experts, a set, its scores beside controls."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from distributed_dd.distillation.networks import NETWORKS
from distributed_dd.durable import write_bytes
from distributed_dd.runners.run import Run, Tensors
from distributed_dd.stages import artefact, estimate, experts, scoring
from distributed_dd.stages.checkpoint import Saved
from distributed_dd.stages.distill import Distillation
from distributed_dd.stages.evaluate import Entry, candidates, score_rows
from distributed_dd.stages.expert import ExpertJob
from distributed_dd.stages.ports import Cluster as Tasks
from distributed_dd.stages.preview import preview_png
from distributed_dd.stages.selection import Jury, starting_set
from distributed_dd.stages.set_subject import SetSubject
from distributed_dd.stages.set_worker import SetJob
from distributed_dd.trajectories.store import TrajectoryStore


class TrajectoryRun(Run):
    """Experts are shared between runs; a set is distilled."""

    shared_stage: ClassVar[str] = "experts"
    shared_tag: ClassVar[str] = "expert_store"
    headline_row: ClassVar[str] = "distilled"
    losses: ClassVar[tuple[str, ...]] = ("matching_loss", "student_learning_rate")
    picture: ClassVar[str] = "synthetic_set"
    columns: ClassVar[tuple[str, ...]] = ("T_minus", "T_plus")

    def begin(self) -> None:
        """Find the store of the experts."""
        e = self.experiment
        data = experts.identity_of(self.material, e.preprocessing)
        self.needed = tuple(sorted({*e.matching.epochs_used(e.experts.num_epochs), *self.epochs}))
        if e.experts.store is None:
            root = e.experts.storage or str(Path(e.output) / "experts")
            self.store = experts.store_for(root, e.experts, e.network, data, e.seed)
        else:
            self.store = TrajectoryStore.at(e.experts.store)

    def given_digest(self) -> dict[str, Any]:
        """The store, where it was given."""
        return {} if self.experiment.experts.store is None else {"expert_store": self.store.digest}

    @cached_property
    def job(self) -> SetJob:
        """What every rank is told."""
        e = self.experiment
        return SetJob(
            e.matching, e.seed, e.experts.num_experts, e.network, self.material.splits.image_shape,
            self.num_classes, self.store, self.folder.absolute().checkpoints,
        )  # fmt: skip

    def check(self) -> None:
        """Refuse an engine that cannot divide the method."""
        num_images = self.experiment.images_per_class * self.num_classes
        self.cluster.engine.check(self.experiment.matching, num_images, self.job.student.network)

    @property
    def shared_digest(self) -> str:
        """Of the experts."""
        return self.store.digest

    @cached_property
    def jury(self) -> Jury:
        """The stored experts, asked about images."""
        e = self.experiment
        return Jury(self.store, e.experts.num_experts, e.network, self.material.train, self.num_classes)

    def prepare(self, for_use: bool = True) -> None:
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

    def present(self) -> str:
        """How many experts are there."""
        num = self.experiment.experts.num_experts
        here = num - len(self.store.missing(num))
        return f"experts   {here} of {num} present in {self.store.folder}"

    def estimate(self, asked: estimate.Sharing | None) -> Iterator[str]:
        """Memory, disk and work."""
        missing = len(self.store.missing(self.experiment.experts.num_experts))
        return estimate.lines(self.experiment, self.material.splits.facts, missing, asked)

    def verify(self) -> None:
        """Open the set."""
        artefact.load_distilled(self.folder.distilled)

    def state(self, saved: Saved) -> Tensors:
        """The set, or its average over outer steps."""
        return self._subject().read(saved)

    def _subject(self) -> SetSubject:
        e = self.experiment

        def starting() -> Tensors:
            return starting_set(e.matching, self.jury, e.images_per_class, e.seed)

        return SetSubject(starting, e.matching.ema_decay is not None, self.validation_accuracy, self._show)

    def distill(self) -> None:
        """Distil the set and write the artefact, unless it is there."""
        e = self.experiment
        if (self.folder.distilled / artefact.MANIFEST).exists():
            self.verify()
            self.progress.say(f"distilled set: already in {self.folder.distilled}")
            return
        engine = self.cluster.engine
        distillation = Distillation(
            e.num_outer_steps, self.judged(), e.checkpoint_every, self._subject(),
            engine.workers(self.job, self.cluster, self.folder.absolute().rank_logs), self.folder,
            self.tracker, self.progress, engine.max_restarts,
        )  # fmt: skip
        with self.timed("distill"):
            best, last, facts = distillation.run()
            facts = self.facts_of(facts)
            title = f"outer step {facts['best_step']}, chosen on validation"
            self._preview(distillation.start()["images"], best, title)
        made_by = {"store": self.store.digest, "num_experts": e.experts.num_experts}
        manifest = artefact.describe(e, self.material.splits, self.digest, made_by, facts)
        artefact.write_artefact(self.folder.distilled, best, last, self.material.fitted, manifest)

    def _show(self, step: int, start: Tensors, tensors: Tensors) -> None:
        path = self._preview(start["images"], tensors, f"outer step {step}")
        self.tracker.picture(self.picture, step, path)

    def _preview(self, starting: Tensor, tensors: Tensors, title: str) -> Path:
        invert, names = self.material.fitted.invert, self.material.splits.class_names
        png = preview_png(invert(starting), invert(tensors["images"]), tensors["classes"], names, title)
        path = self.folder.distilled / artefact.PREVIEW
        write_bytes(path, png)
        return path

    def validation_accuracies(self, tensors: Tensors, members: Iterable[int], cluster: Tasks) -> list[float]:
        """What fresh networks of these numbers, trained on a set, reach on the validation split."""
        given = (tensors["images"], tensors["labels"], float(tensors["learning_rate"]))
        return self.scored_on_validation([scoring.Trial(*given, member) for member in members], cluster)

    def rows(self) -> tuple[list[dict[str, Any]], int]:
        """The set, its controls, the experts."""
        e, distilled = self.experiment, self.folder.distilled
        entry = Entry(
            artefact.load_distilled(distilled), artefact.load_last_step(distilled),
            self.jury.soft_labels(e.matching.labels), e.images_per_class, e.seed,
        )  # fmt: skip
        rows, peak = score_rows(
            candidates(entry, self.material, e.evaluate), e.network, e.evaluate, e.seed, self.material,
            self.cluster, self.progress,
        )  # fmt: skip
        experts_alone = self.jury.accuracies(self.material.test)
        return [*rows, scoring.row("expert", NETWORKS.kind_of(e.network), "hard", experts_alone)], peak
