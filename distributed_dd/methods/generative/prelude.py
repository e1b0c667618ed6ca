"""The conditional GAN as what runs share: trained once, found again by all that decides about it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from distributed_dd.data.material import identity_of_data
from distributed_dd.durable import write_bytes
from distributed_dd.evaluation.artefact import MANIFEST
from distributed_dd.interrupts import told_from_errors
from distributed_dd.methods.generative.gan_store import GanStore
from distributed_dd.methods.generative.product import PICTURE, gan_subject, picture_of
from distributed_dd.methods.generative.settings import GenerativeSettings
from distributed_dd.methods.generative.steps import GenerativeJob
from distributed_dd.nested import flattened
from distributed_dd.outer.judging import Judging
from distributed_dd.outer.loop import Distillation
from distributed_dd.outer.prelude import Crew, Made, Prelude, SharedRun
from distributed_dd.outer.world import World

LOSSES = ("discriminator_distance", "generator_classification", "discriminator_penalty")


@dataclass
class GanPrelude(Prelude):
    """The GAN of a method's settings on one data set."""

    method: GenerativeSettings
    world: World

    stage: ClassVar[str] = "gan"
    tag: ClassVar[str] = "gan"

    @cached_property
    def store(self) -> GanStore:
        """Where it lies."""
        world = self.world
        root = Path(self.method.gan.storage or world.output / "gans")
        data = identity_of_data(world.real, world.preprocessing)
        data.pop("preprocessing")  # a GAN sees pixels
        return GanStore(root, self.method, data, world.seed)

    @property
    def digest(self) -> str:
        """Of all that decides about it."""
        return self.store.digest

    def make(self, crew: Crew, for_use: bool) -> Made:
        """Train it, unless it is there."""
        store = self.store
        with store.held(crew.progress.say):
            trained = not store.exists
            if trained:
                self._train(crew)
        crew.progress.say(f"GAN: {'trained, in' if trained else 'already in'} {store.path}")
        return Made(trained, cost=store.cost)

    def _train(self, crew: Crew) -> None:
        method, store, world = self.method, self.store, self.world
        folder, settings = store.folder.absolute(), method.gan
        job = GenerativeJob.of(method, method.phase("gan"), world, folder.checkpoints)
        tracker = crew.tracker_of(self._shown(), store.folder)

        def show(step: int, start: Any, tensors: Any) -> None:
            png = picture_of(method, world, tensors, f"conditional GAN, step {step} of {settings.num_steps}")
            write_bytes(store.preview, png)
            tracker.picture(PICTURE, step, store.preview)

        training = Distillation(
            num_outer_steps=settings.num_steps,
            judging=Judging.shown(settings.show_every, settings.num_steps),
            checkpoint_every=crew.checkpoint_every,
            subject=gan_subject(job.starting, show),
            workers=crew.workers(job, folder.rank_logs),
            folder=store.folder,
            tracker=tracker,
            progress=crew.progress,
            max_restarts=crew.max_restarts,
            what="GAN",
            unit="update",
        )
        status = "FAILED"
        try:
            with told_from_errors():
                _, last, facts = training.run()
            store.write(last, {"training": crew.facts_of(facts)})
            tracker.artefact(store.path / MANIFEST)
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            tracker.end(status)

    def _shown(self) -> SharedRun:
        """A GAN is a run of its own in a tracker: others share it."""
        store = self.store
        return SharedRun(
            role="gan",
            title="conditional GANs",
            name=f"gan {store.path.name}",
            parameters=dict(flattened(store.identity)),
            tags={"method": "gan", "gan": store.digest},
            losses=LOSSES,
            picture=PICTURE,
            num_steps=self.method.gan.num_steps,
        )

    def missing(self) -> float:
        """1 where it is not trained yet."""
        return float(not self.store.exists)

    def present(self) -> str:
        """Whether it is there."""
        return f"GAN       {'present' if self.store.exists else 'not trained yet'} in {self.store.path}"

    def where(self) -> str:
        """Its folder."""
        return f"the conditional GAN is in {self.store.path}"
