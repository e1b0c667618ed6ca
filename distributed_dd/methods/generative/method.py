"""Distillation of a generator as a method: what it needs beforehand, what its ranks do, and what people see of it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from distributed_dd.data import Facts
from distributed_dd.evaluation.elsewhere import Elsewhere
from distributed_dd.evaluation.product import Product
from distributed_dd.evaluation.words import Words
from distributed_dd.family import plain, require
from distributed_dd.learning.networks.fitting import check_fits
from distributed_dd.methods.generative.artefact import Generator, folder_of, load_generator
from distributed_dd.methods.generative.elsewhere import GeneratorElsewhere
from distributed_dd.methods.generative.estimate import work_of
from distributed_dd.methods.generative.gan_store import SETTINGS
from distributed_dd.methods.generative.pool import pool_layers
from distributed_dd.methods.generative.prelude import GanPrelude
from distributed_dd.methods.generative.product import NOTED, PICTURE, GeneratorProduct
from distributed_dd.methods.generative.rows import FRESH, TITLES
from distributed_dd.methods.generative.settings import GenerativeSettings
from distributed_dd.methods.generative.steps import GenerativeJob
from distributed_dd.nested import at, laid_over
from distributed_dd.outer.checkpoint import Checkpoints
from distributed_dd.outer.division import Batch, Division, mixing_layers
from distributed_dd.outer.method import Method
from distributed_dd.outer.ports import Job
from distributed_dd.outer.scale import Scale, Work
from distributed_dd.outer.world import World

BATCHES = ("batch_size", "gan.batch_size", "pool.batch_size")


@dataclass(frozen=True, kw_only=True)
class Generative(GenerativeSettings, Method):
    """Distil a generator by global structure and local details (arXiv 2404.17732; DiM, arXiv 2303.04707)."""

    words: ClassVar[Words] = Words(
        losses={
            "discriminator_distance": "distance between real and generated",
            "generator_classification": "classification loss of the generator",
            "generator_global": "global loss, unweighted",
            "generator_local": "local loss, unweighted",
        },
        noted=NOTED,
        rows=TITLES,
        columns={FRESH: "fresh noise", "distilled": "distilled, frozen"},
        headline=FRESH,
        picture=PICTURE,
        parameters={"method.global_weight": "global weight", "method.local_weight": "local weight"},
        compared=("method.global_weight", "method.local_weight"),
        about_columns="Fresh noise: networks saw new images of a generator in every epoch, as many as a set "
        "would have. Distilled, frozen: one frozen sample of a generator, or the distilled set of another method.",
    )
    unsearched: ClassVar[tuple[str, ...]] = ("method.judged_by",)
    tried_elsewhere: ClassVar[tuple[type[Elsewhere], ...]] = (GeneratorElsewhere,)

    def prelude(self, world: World, varied: Collection[str] = ()) -> GanPrelude:
        """The conditional GAN."""
        return GanPrelude(self, world)

    @property
    def shared_fields(self) -> tuple[str, ...]:
        """What has a part in the GAN's own training."""
        return tuple(f"method.{name}" for name in SETTINGS)

    @classmethod
    def begun_from(cls, values: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
        """With batches that as few images fill."""
        most, batches = max(1, facts.num_train // 2), {}
        for name in BATCHES:
            size = at(values, f"method.{name}") or at(plain(cls()), name)
            if size > most:
                batches[f"method.{name}"] = most
        return laid_over(values, batches)

    def check(self, world: World) -> None:
        """Refuse networks that cannot judge, and batches larger than the data."""
        for name in ("generator", "discriminator"):
            check_fits(getattr(self, name), world.image_shape, world.num_classes, name == "discriminator")
        num_real = len(world.real.pixels)
        for name in BATCHES:
            batch_size = at(plain(self), name)
            require(
                batch_size <= num_real,
                f"method.{name}",
                f"{batch_size}, and there are {num_real} training images",
                f"at most {num_real}",
            )
        if self.matched:
            pool_layers(self.pool, world.image_shape, world.num_classes)

    def division(self, world: World) -> Division:
        """Every batch, where the networks of the pool see each image alone."""
        layers = pool_layers(self.pool, world.image_shape, world.num_classes) if self.matched else []
        mixing = [
            obstacle
            for number, network in enumerate(layers)
            for obstacle in mixing_layers(network, f"method.pool.networks[{number}]")
        ]
        batches = (
            Batch("method.batch_size", "batch", self.batch_size),
            Batch("method.gan.batch_size", "batch of the GAN", self.gan.batch_size),
        )
        return Division(num_rows=0, batches=batches, mixing=mixing)

    def job(self, world: World, checkpoints: Checkpoints) -> Job:
        """The distillation of the generator."""
        return GenerativeJob.of(self, self.phase("distil"), world, checkpoints)

    def product(self, world: World, folder: Path) -> Product:
        """The generator, and a frozen sample."""
        return GeneratorProduct(self, world, folder)

    def loaded(self, folder: Path) -> Generator:
        """The generator."""
        return load_generator(folder)

    def elsewhere(self, folder: Path) -> Elsewhere:
        """For a folder with a generator both protocols at any size; for a bare sample what any set has."""
        return GeneratorElsewhere() if folder_of(folder) is not None else super().elsewhere(folder)

    def work(self, scale: Scale) -> Work:
        """GAN, distillation, pool and evaluation."""
        return work_of(self, scale)
