"""A run of generative distillation: a conditional GAN, its generator distilled, sets of any size from it."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from safetensors.torch import save
from torch import Tensor

from distributed_dd.backends.mlflow_tracker import Description, MlflowTracker
from distributed_dd.backends.mlflow_views import shared_view
from distributed_dd.backends.no_tracker import NoTracker
from distributed_dd.distillation.methods.generative import Phase
from distributed_dd.durable import write_bytes
from distributed_dd.family import at, flattened, plain, require
from distributed_dd.runners.run import Run, Tensors
from distributed_dd.stages import (
    artefact,
    estimate,
    experts,
    generative_estimate,
    generator_artefact,
    generator_rows,
    scoring,
)
from distributed_dd.stages.checkpoint import Checkpoints, Saved
from distributed_dd.stages.distill import Distillation
from distributed_dd.stages.evaluate import score_rows
from distributed_dd.stages.gan_store import GanStore
from distributed_dd.stages.generated import Source, all_classes, finished, frozen
from distributed_dd.stages.generative_worker import GenerativeJob
from distributed_dd.stages.generator_subject import GeneratorSubject, theta_of
from distributed_dd.stages.judging import Judging
from distributed_dd.stages.pool import PoolJob, pool_layers
from distributed_dd.stages.ports import Cluster as Tasks
from distributed_dd.stages.preview import preview_png
from distributed_dd.stages.run_folder import load_tensors

SHOWN_PER_CLASS = 10
LAST = "last_step.safetensors"
GAN_LOSSES = ("discriminator_distance", "generator_classification", "discriminator_penalty")


class GenerativeRun(Run):
    """A conditional GAN is shared between runs; its generator is distilled."""

    shared_stage: ClassVar[str] = "gan"
    shared_tag: ClassVar[str] = "gan"
    headline_row: ClassVar[str] = generator_rows.FRESH
    losses: ClassVar[tuple[str, ...]] = (
        "discriminator_distance", "generator_classification", "generator_global", "generator_local",
    )  # fmt: skip
    picture: ClassVar[str] = "generated_images"
    columns: ClassVar[tuple[str, ...]] = ("global_weight", "local_weight")

    def begin(self) -> None:
        """Find where the GAN lies."""
        e = self.experiment
        root = Path(e.generative.gan.storage or Path(e.output) / "gans")
        data = experts.identity_of(self.material, e.preprocessing)
        data.pop("preprocessing")  # a GAN sees pixels
        self.gan = GanStore(root, e.generative, data, e.seed)

    @cached_property
    def pool(self) -> PoolJob:
        """The networks that compare, and what they learn from."""
        e = self.experiment
        return PoolJob(e.generative.pool, e.seed, self.material.train, self.num_classes, e.num_outer_steps)

    def check(self) -> None:
        """Refuse networks that cannot judge, and an engine that cannot divide the method."""
        method, shape = self.experiment.generative, self.material.splits.image_shape
        for name in ("generator", "discriminator"):
            getattr(method, name).build(shape, self.num_classes)
        num_real = len(self.material.splits.train)
        for name in ("batch_size", "gan.batch_size", "pool.batch_size"):
            given = at(plain(method), name)
            require(
                given <= num_real, f"method.{name}", f"{given}, and there are {num_real} training images",
                f"at most {num_real}",
            )  # fmt: skip
        layers = pool_layers(method.pool, shape, self.num_classes) if method.matched else []
        self.cluster.engine.check_generative(method, layers)

    @property
    def shared_digest(self) -> str:
        """Of the GAN."""
        return self.gan.digest

    def _job(self, phase: Phase, checkpoints: Checkpoints) -> GenerativeJob:
        e, splits = self.experiment, self.material.splits
        return GenerativeJob(
            e.generative, phase, e.seed, splits.train, self.material.fitted,
            self.pool if phase.matched else None, splits.image_shape, self.num_classes, checkpoints,
        )  # fmt: skip

    def prepare(self, for_use: bool = True) -> None:
        """Train the conditional GAN, unless it is there."""
        gan = self.gan
        with gan.held(self.progress.say):
            trained = not gan.exists
            if trained:
                self._train_gan(self.experiment.generative.phase("gan"))
        self.costs["gan"] = gan.cost  # what it cost whoever trained it
        self.progress.say(f"GAN: {'trained, in' if trained else 'already in'} {gan.path}")

    def _train_gan(self, phase: Phase) -> None:
        e, gan, engine = self.experiment, self.gan, self.cluster.engine
        folder = gan.folder.absolute()
        job, settings = self._job(phase, folder.checkpoints), e.generative.gan
        tracker = self._gan_tracker()

        def show(step: int, tensors: Tensors) -> None:
            png = self._picture(tensors, f"conditional GAN, step {step} of {settings.num_steps}")
            write_bytes(gan.preview, png)
            tracker.picture(self.picture, step, gan.preview)

        subject = GeneratorSubject(job.starting, _never, show)
        training = Distillation(
            settings.num_steps, Judging.shown(settings.show_every, settings.num_steps), e.checkpoint_every,
            subject, engine.workers(job, self.cluster, folder.rank_logs), gan.folder, tracker, self.progress,
            engine.max_restarts, "GAN", "update",
        )  # fmt: skip
        status = "FAILED"
        try:
            _, last, facts = training.run()
            gan.write(last, {"training": self.facts_of(facts)})
            tracker.artefact(gan.path / artefact.MANIFEST)
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            tracker.end(status)

    def _gan_tracker(self) -> MlflowTracker | NoTracker:
        """A GAN is a run of its own: others share it."""
        e = self.experiment
        if e.tracker == "none":
            return NoTracker()
        tags = {
            "dataset": e.data.name, "method": "gan", "seed": str(e.seed), "role": "gan",
            "gan": self.gan.digest,
            "data_sha256": self.material.splits.sha256, "engine": str(self.cluster.engine),
        }  # fmt: skip
        told = Description(
            f"distributed_dd/{e.data.name}/{e.method.name}", f"gan {self.gan.path.name}",
            dict(flattened(self.gan.identity)), tags, loss=self.losses[0], picture=self.picture,
        )  # fmt: skip
        database = Path(e.output) / "mlflow.db"
        tracker = MlflowTracker(database, self.gan.folder.tracked, told, self.progress.say)
        num_steps = e.generative.gan.num_steps
        tracker.view(shared_view("conditional GANs", "gan", num_steps, GAN_LOSSES, self.picture))
        return tracker

    def _source(self, tensors: Tensors, per_class: int, *key: str | int) -> Source:
        """The generator of a checkpoint as a source of images."""
        e = self.experiment
        member, shape = e.generative.generator, self.material.splits.image_shape
        return Source(
            finished(member, shape, self.num_classes, theta_of(tensors)), self.material.fitted,
            member.noise_size, self.num_classes, all_classes(self.num_classes, per_class), e.seed, key,
        )  # fmt: skip

    def _picture(self, tensors: Tensors, title: str) -> bytes:
        """Images of every class, from the same noise every time."""
        source = self._source(tensors, SHOWN_PER_CLASS, "picture")
        pixels = self.material.fitted.invert(source.epoch(0))
        return preview_png(None, pixels, source.classes, self.material.splits.class_names, title, "generated")

    def present(self) -> str:
        """Whether the GAN is there."""
        return f"GAN       {'present' if self.gan.exists else 'not trained yet'} in {self.gan.path}"

    def estimate(self, asked: estimate.Sharing | None) -> Iterator[str]:
        """Memory, disk and work."""
        missing = not self.gan.exists
        return generative_estimate.lines(self.experiment, self.material.splits.facts, missing, asked)

    @property
    def generator_folder(self) -> Path:
        """Where the distilled generator lies."""
        return self.folder.path / generator_artefact.FOLDER

    def verify(self) -> None:
        """Open the generator and the frozen sample."""
        generator_artefact.load_generator(self.folder.path)
        artefact.load_distilled(self.folder.distilled)

    def state(self, saved: Saved) -> Tensors:
        """Both networks."""
        return self._subject().read(saved)

    def _subject(self) -> GeneratorSubject:
        def show(step: int, tensors: Tensors) -> None:
            path = self.generator_folder / artefact.PREVIEW
            write_bytes(path, self._picture(tensors, f"outer step {step}"))
            self.tracker.picture(self.picture, step, path)

        return GeneratorSubject(self.gan.load, self.validation_accuracy, show)

    def distill(self) -> None:
        """Distil the generator, write it and a frozen sample, unless they are there."""
        e = self.experiment
        if (self.folder.distilled / artefact.MANIFEST).exists():
            self.verify()
            self.progress.say(f"distilled generator: already in {self.generator_folder}")
            return
        engine, folder = self.cluster.engine, self.folder.absolute()
        job = self._job(e.generative.phase("distil"), folder.checkpoints)
        distillation = Distillation(
            e.num_outer_steps, self.judged(), e.checkpoint_every, self._subject(),
            engine.workers(job, self.cluster, folder.rank_logs), self.folder, self.tracker, self.progress,
            engine.max_restarts,
        )  # fmt: skip
        with self.timed("distill"):
            best, last, facts = distillation.run()
            self._write(best, last, self.facts_of(facts))

    def _write(self, best: Tensors, last: Tensors, facts: dict[str, Any]) -> None:
        """The generator and its last step, pictures, then the frozen sample, whose manifest ends it."""
        e, splits, folder = self.experiment, self.material.splits, self.generator_folder
        write_bytes(folder / LAST, save({"theta": theta_of(last).contiguous()}))
        title = f"outer step {facts['best_step']}, chosen on validation"
        png = self._picture(best, title)
        for place in (folder, self.folder.distilled):
            write_bytes(place / artefact.PREVIEW, png)
        described = artefact.describe(e, splits, self.digest, None, facts)
        described["evaluation"]["learning_rate"] = e.evaluate.optimizer.learning_rate  # none was distilled
        made = generator_artefact.write_generator(
            folder, e, splits, self.material.fitted, theta_of(best), described
        )
        sample = frozen(made.source(e.images_per_class, e.seed), e.evaluate.optimizer.learning_rate)
        manifest = made.sample_manifest(e.images_per_class, e.seed)
        artefact.write_artefact(self.folder.distilled, sample, None, self.material.fitted, manifest)

    def validation_accuracies(self, tensors: Tensors, members: Iterable[int], cluster: Tasks) -> list[float]:
        """What fresh networks of these numbers reach on the validation split, by the method's protocol."""
        e = self.experiment
        source = self._source(tensors, e.images_per_class, "validation")
        given: Source | Tensor = source
        if e.generative.judged_by == "frozen":
            given = frozen(source, 1.0)["images"]
        trials = [scoring.Trial(given, source.classes, None, member) for member in members]
        return self.scored_on_validation(trials, cluster)

    def rows(self) -> tuple[list[dict[str, Any]], int]:
        """Fresh and frozen images, and the controls."""
        e, material = self.experiment, self.material
        made = generator_artefact.load_generator(self.folder.path)
        sample = artefact.load_distilled(self.folder.distilled)
        theta = load_tensors(self.generator_folder / LAST)["theta"]
        best_is_last = made.manifest["outer_step"] == e.num_outer_steps
        last = None if best_is_last else self._source({"generator.theta": theta}, e.images_per_class, "fresh")
        entry = generator_rows.Generated(
            made.source(e.images_per_class, e.seed), last,
            {"images": sample.images}, e.images_per_class, e.seed,
        )  # fmt: skip
        rows, peak = score_rows(
            generator_rows.candidates(entry, material, e.evaluate), e.network, e.evaluate, e.seed, material,
            self.cluster, self.progress,
        )  # fmt: skip
        num = e.images_per_class * self.num_classes
        return [generator_rows.told(row, num, e.evaluate.num_epochs) for row in rows], peak

    def more_for_the_report(self) -> dict[str, Any]:
        """What generator and set take to keep, and by which protocol the step was chosen."""
        made = generator_artefact.load_generator(self.folder.path)
        sample = artefact.load_distilled(self.folder.distilled)
        return {
            "storage_bytes": {"generator": made.num_bytes, "set": sample.images.nbytes},
            "chosen_by": self.experiment.generative.judged_by,
        }

    def artefacts(self) -> list[Path]:
        """The generator and the frozen sample."""
        return [self.generator_folder, self.folder.distilled]


def _never(tensors: Tensors, num_networks: int, cluster: Tasks) -> float:
    raise RuntimeError("a GAN is not scored while it is trained")
