"""A distilled generator as a result: the generator itself, and a frozen sample of it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from distributed_dd.durable import write_bytes
from distributed_dd.evaluation import artefact
from distributed_dd.evaluation.coresets import Coreset
from distributed_dd.evaluation.fits import Fit
from distributed_dd.evaluation.preview import preview_png
from distributed_dd.evaluation.product import Describe, Product, Tensors
from distributed_dd.evaluation.scoring import Candidate
from distributed_dd.methods.generative import artefact as generators
from distributed_dd.methods.generative import rows as generator_rows
from distributed_dd.methods.generative.settings import GenerativeSettings
from distributed_dd.methods.generative.source import Source, all_classes, finished, frozen
from distributed_dd.methods.generative.steps import AVERAGE
from distributed_dd.outer.checkpoint import Saved
from distributed_dd.outer.loop import Subject
from distributed_dd.outer.work import size
from distributed_dd.outer.world import World

SHOWN_PER_CLASS = 10
PICTURE = "generated_images"
CALLED = {"fresh": "fresh-noise", "frozen": "frozen"}
NOTED = {"discriminator_distance": "distance", "generator_global": "global", "generator_local": "local"}


def theta_of(tensors: Tensors) -> Tensor:
    """The parameters (P,) of the generator that counts: its average over steps, where there is one."""
    return tensors.get(AVERAGE, tensors["generator.theta"])


def everything(saved: Saved) -> Tensors:
    """Both networks of a checkpoint with Adam's state."""
    return {name: saved.value(name) for name in sorted(saved.names())}


def gan_subject(starting: Callable[[], Tensors], show: Callable[[int, Tensors, Tensors], None]) -> Subject:
    """A GAN as the outer loop sees it: shown, never scored."""
    return Subject(starting=starting, read=everything, show=show, noted=NOTED)


def source_of(method: GenerativeSettings, world: World, tensors: Tensors, per_class: int, *key: str | int) -> Source:
    """The generator of a checkpoint as a source of images."""
    member = method.generator
    return Source(
        layers=finished(member, world.image_shape, world.num_classes, theta_of(tensors)),
        fitted=world.real.fitted,
        noise_size=member.noise_size,
        num_classes=world.num_classes,
        classes=all_classes(world.num_classes, per_class),
        seed=world.seed,
        key=key,
    )


def picture_of(method: GenerativeSettings, world: World, tensors: Tensors, title: str) -> bytes:
    """Images of every class, from the same noise every time."""
    source = source_of(method, world, tensors, SHOWN_PER_CLASS, "picture")
    pixels = world.real.fitted.invert(source.epoch(0))
    return preview_png(None, pixels, source.classes, world.real.splits.class_names, title, "generated")


@dataclass(frozen=True)
class GeneratorProduct(Product):
    """A generator in ``generator/`` and a frozen sample of it in ``distilled/`` of a run folder."""

    method: GenerativeSettings
    world: World
    folder: Path

    def starting(self) -> Tensors:
        """The conditional GAN."""
        return self.world.shared.store.load()

    def read(self, saved: Saved) -> Tensors:
        """Both networks."""
        return everything(saved)

    def fits(self, tensors: Tensors, members: Iterable[int]) -> list[Fit]:
        """Networks trained by the method's protocol: on fresh images, or on one frozen sample."""
        source = source_of(self.method, self.world, tensors, self.world.images_per_class, "validation")
        images: Source | Tensor = source
        if self.method.judged_by == "frozen":
            images = frozen(source, 1.0)["images"]
        return [Fit(images=images, labels=source.classes, learning_rate=None, member=member) for member in members]

    def picture(self, start: Tensors, tensors: Tensors, title: str) -> bytes:
        """Images of every class."""
        return picture_of(self.method, self.world, tensors, title)

    def write(self, best: Tensors, last: Tensors, start: Tensors, facts: dict[str, Any], describe: Describe) -> None:
        """The generator and its last step, pictures, then the frozen sample, whose manifest ends it."""
        world, (folder, sample_folder) = self.world, self.folders
        rate = world.evaluate.optimizer.learning_rate
        png = self.picture(start, best, f"outer step {facts['best_step']}, chosen on validation")
        for place in (folder, sample_folder):
            write_bytes(place / artefact.PREVIEW, png)
        described = describe(facts)
        described["evaluation"]["learning_rate"] = rate  # none was distilled
        generator = generators.write_generator(
            folder, self.method.generator, world, theta_of(best), described, theta_of(last)
        )
        sample = frozen(generator.source(world.images_per_class, world.seed), rate)
        manifest = generator.sample_manifest(world.images_per_class, world.seed)
        artefact.write_artefact(sample_folder, sample, None, world.real.fitted, manifest)

    def verify(self) -> None:
        """Open the generator and the frozen sample."""
        generators.load_generator(self.folder)
        generators.last_step(self.folders[0])
        artefact.load_distilled(self.folders[1])

    def rows(self, coresets: Sequence[Coreset]) -> list[Candidate]:
        """Fresh and frozen images, and the controls."""
        world = self.world
        generator, sample = generators.load_generator(self.folder), artefact.load_distilled(self.folders[1])
        last = None
        if generator.manifest["outer_step"] != world.num_outer_steps:
            tensors = {"generator.theta": generators.last_step(self.folders[0])}
            last = source_of(self.method, world, tensors, world.images_per_class, "fresh")
        entry = generator_rows.Generated(
            source=generator.source(world.images_per_class, world.seed),
            last=last,
            frozen={"images": sample.images},
            images_per_class=world.images_per_class,
            seed=world.seed,
            coresets=coresets,
        )
        return generator_rows.candidates(entry, world.real, world.evaluate)

    def finished(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with its protocol and the number of images that its networks saw."""
        return generator_rows.with_protocol(row, self.world.num_images, self._num_epochs)

    @property
    def _num_epochs(self) -> int:
        """Epochs that networks are trained for."""
        world = self.world
        return world.evaluate.recipe(world.num_classes, world.num_images).num_epochs

    def more_for_the_report(self) -> dict[str, Any]:
        """What generator and set take to keep, and by which protocol the step was chosen."""
        generator, sample = generators.load_generator(self.folder), artefact.load_distilled(self.folders[1])
        kept = {"generator": generator.num_bytes, "set": sample.images.nbytes}
        num_frozen = self.world.num_images
        remarks = [
            f"Storage: the generator takes {size(kept['generator'])}, the frozen set {size(kept['set'])} (float32).",
            f"A network saw {num_frozen * self._num_epochs:,} different images with fresh noise, "
            f"{num_frozen:,} of the frozen sample or of random real images.",
        ]
        judged_by: str = self.method.judged_by
        return {
            "storage_bytes": kept,
            "remarks": remarks,
            "chosen_by": judged_by,
            "chosen_by_protocol": f"the {CALLED[judged_by]} protocol",
        }

    def bytes_per_class(self) -> dict[str, int] | None:
        """The generator's share of a class stands for images, whatever their number; its classes need no labels."""
        generator = generators.load_generator(self.folder)
        return {"images": generator.num_bytes // generator.num_classes, "labels": 0}

    @property
    def folders(self) -> Sequence[Path]:
        """The generator's, the frozen sample's."""
        return [self.folder / generators.FOLDER, self.folder / "distilled"]
