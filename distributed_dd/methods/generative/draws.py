"""All chance of an outer step of a generator, and in which of its two phases it is drawn."""

from dataclasses import dataclass

from torch import Tensor

from distributed_dd.learning.augment import Drawn
from distributed_dd.learning.update_rules import Adam


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Settings in which the GAN's own training and the distillation differ.

    Attributes:
        key: word that sets its draws apart.
        matched: whether the networks of the pool are asked.
    """

    key: str
    batch_size: int
    generator_optimizer: Adam
    discriminator_optimizer: Adam
    matched: bool


@dataclass(frozen=True)
class CriticDraw:
    """All chance of one update of the discriminator."""

    real: Tensor
    noise: Tensor
    classes: Tensor
    mix: Tensor


@dataclass(frozen=True)
class StepDraw:
    """All chance of one outer step: real images by index, noise, an augmentation, the critic's draws."""

    real: Tensor
    noise: Tensor
    augment: Drawn
    critic: tuple[CriticDraw, ...]
