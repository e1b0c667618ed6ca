"""The settings of generative distillation: a conditional GAN that a pool of networks finds alike to real images.

DiM (arXiv 2303.04707) matches logits, "balancing global structure and local details" (arXiv 2404.17732) also
features of a middle layer. With ``local_weight`` 0 it is DiM; with both weights 0 the conditional GAN alone.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from distributed_dd.family import choice, setting
from distributed_dd.learning.augment import AUGMENTATIONS, Augmentation, InTurn
from distributed_dd.learning.batches import endless_batch
from distributed_dd.learning.chance import generator
from distributed_dd.learning.networks.discriminator import ConvDiscriminator
from distributed_dd.learning.networks.generator import ConvGenerator
from distributed_dd.learning.update_rules import Adam
from distributed_dd.methods.generative.correspondence import FeatureForm, LogitForm
from distributed_dd.methods.generative.draws import CriticDraw, Phase, StepDraw
from distributed_dd.methods.generative.pool_settings import Pool

OF_A_GAN = Adam(1e-4, 0.0, 0.9)


@dataclass(frozen=True, kw_only=True)
class GanTraining:
    """The conditional GAN before any matching; runs with the same one share it."""

    num_steps: int = setting("updates of the generator (150 epochs of 50,000 images are 58,500)", 58500, at_least=1)
    batch_size: int = setting("real images, and as many generated ones, per update", 128, at_least=1)
    generator_optimizer: Adam = setting("optimiser of the generator", OF_A_GAN)
    discriminator_optimizer: Adam = setting("optimiser of the discriminator", OF_A_GAN)
    storage: str | None = setting(
        "folder in which GANs lie (null: OUTPUT/gans)", None, identity=False, place=True, folder=True
    )
    show_every: int = setting("updates between pictures", 1000, identity=False, at_least=1)


@dataclass(frozen=True, kw_only=True)
class GenerativeSettings:
    """What can be set, and what follows from it alone."""

    name: str = setting("the method's name in reports", "generative")
    generator: ConvGenerator = setting("noise and class to image", ConvGenerator())
    discriminator: ConvDiscriminator = setting("real or generated, and which class", ConvDiscriminator())
    gan: GanTraining = setting("the conditional GAN before any matching", GanTraining())
    batch_size: int = setting("real images, and as many generated ones, per outer step", 64, at_least=1)
    generator_optimizer: Adam = setting("optimiser of the generator, matched", Adam(5e-6, 0.0, 0.9))
    discriminator_optimizer: Adam = setting("optimiser of the discriminator meanwhile", Adam(5e-6, 0.0, 0.9))
    discriminator_steps: int = setting(
        "updates of the discriminator for each of the generator", 1, at_least=1, at_most=1_000_000
    )
    gradient_penalty: float = setting("weight of the discriminator's gradient penalty", 10.0)
    classification_weight: float = setting("weight of the class losses of both networks", 1.0)
    global_weight: float = setting("weight of the difference of logits (0: left out)", 0.01)
    local_weight: float = setting("weight of the difference of middle-layer features (0: left out)", 0.001)
    logits: LogitForm = setting("logits that are compared: as they are, or their log-softmax", "log_softmax")
    features: FeatureForm = setting(
        "how features are compared: sum of absolute differences of batch means, mean of their squares, or "
        "mean of squared differences image by image",
        "l1_sum",
    )
    pool: Pool = setting("networks that compare", Pool())
    augment: Augmentation = choice(
        AUGMENTATIONS,
        "of real and generated images alike before they are compared",
        InTurn(("color", "crop", "cutout"), shared=True),
    )
    ema_decay: float | None = setting(
        "average the generator over steps with this decay (null: no)", None, above=0, below=1
    )
    judged_by: Literal["fresh", "frozen"] = setting(
        "what a step is chosen by on validation: networks that see new images in every epoch, or one frozen sample",
        "fresh",
    )
    precision: Literal["float32", "bf16"] = setting("arithmetic of all networks", "float32")

    @property
    def matched(self) -> bool:
        """Whether the pool is asked at all."""
        return self.global_weight > 0 or self.local_weight > 0

    def phase(self, key: Literal["gan", "distil"]) -> Phase:
        """The GAN's own training, or the distillation."""
        if key == "gan":
            gan = self.gan
            return Phase(
                key=key,
                batch_size=gan.batch_size,
                generator_optimizer=gan.generator_optimizer,
                discriminator_optimizer=gan.discriminator_optimizer,
                matched=False,
            )
        return Phase(
            key=key,
            batch_size=self.batch_size,
            generator_optimizer=self.generator_optimizer,
            discriminator_optimizer=self.discriminator_optimizer,
            matched=self.matched,
        )

    def draw(self, step: int, phase: Phase, seed: int, num_real: int, num_classes: int) -> StepDraw:
        """Everything random about an outer step; the same in any process."""
        size, rng = phase.batch_size, generator(seed, phase.key, "step", step)
        noise = torch.randn(min(size, num_real), self.generator.noise_size, generator=rng)
        augment = self.augment.draw(rng, len(noise))
        critic = tuple(
            self._critic_draw(step * self.discriminator_steps + turn, phase, seed, num_real, num_classes)
            for turn in range(self.discriminator_steps)
        )
        return StepDraw(critic[0].real, noise, augment, critic)

    def _critic_draw(self, number: int, phase: Phase, seed: int, num_real: int, num_classes: int) -> CriticDraw:
        rng = generator(seed, phase.key, "discriminator", number)
        real = endless_batch(num_real, phase.batch_size, number, seed, phase.key, "order")
        noise = torch.randn(len(real), self.generator.noise_size, generator=rng)
        classes = torch.randint(num_classes, (len(real),), generator=rng)
        return CriticDraw(real, noise, classes, torch.rand(len(real), generator=rng))
