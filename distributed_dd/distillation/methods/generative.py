"""Distillation of a generator: a conditional GAN that a pool of networks finds alike to real images.

DiM (arXiv 2303.04707) matches logits, "balancing global structure and local details" (arXiv 2404.17732) also
features of a middle layer. With ``local_weight`` 0 it is DiM; with both weights 0 the conditional GAN alone.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from distributed_dd.distillation.augment import AUGMENTATIONS, Augmentation, Drawn, InTurn
from distributed_dd.distillation.chance import generator
from distributed_dd.distillation.correspondence import FeatureForm, LogitForm
from distributed_dd.distillation.endless import endless_batch
from distributed_dd.distillation.networks import NETWORKS, Network
from distributed_dd.distillation.networks.convnet import ConvNet
from distributed_dd.distillation.networks.discriminator import ConvDiscriminator
from distributed_dd.distillation.networks.generator import ConvGenerator, conditioned
from distributed_dd.distillation.networks.resnet import ResNet10, ResNet18
from distributed_dd.family import choice, choices, require, setting


@dataclass(frozen=True)
class Adam:
    """Adam settings of one of the two networks."""

    learning_rate: float = setting("step size", 1e-4)
    beta1: float = setting("decay of the mean of gradients", 0.0)
    beta2: float = setting("decay of the mean of their squares", 0.9)

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, "learning_rate", f"got {self.learning_rate}", "above 0")
        for name in ("beta1", "beta2"):
            require(0 <= getattr(self, name) < 1, name, f"got {getattr(self, name)}", "0 or more, below 1")


@dataclass(frozen=True)
class GanTraining:
    """The conditional GAN before any matching; runs with the same one share it."""

    num_steps: int = setting("updates of the generator (150 epochs of 50,000 images are 58,500)", 58500)
    batch_size: int = setting("real images, and as many generated ones, per update", 128)
    generator_optimizer: Adam = setting("optimiser of the generator", Adam())
    discriminator_optimizer: Adam = setting("optimiser of the discriminator", Adam())
    storage: str | None = setting("folder in which GANs lie (null: OUTPUT/gans)", None, identity=False)
    show_every: int = setting("updates between pictures", 1000, identity=False)

    def __post_init__(self) -> None:
        for name in ("num_steps", "batch_size", "show_every"):
            require(getattr(self, name) >= 1, name, f"got {getattr(self, name)}", "1 or more")


@dataclass(frozen=True)
class Pool:
    """The networks that compare generated with real images: one at a time, drawn at random, freshly made.

    While one is in use it is trained on real images, ``net_steps`` steps before each update of the generator.
    """

    networks: tuple[Network, ...] = choices(
        NETWORKS, "kinds to draw from", (ConvNet(), ResNet10(width=32), ResNet18(width=32))
    )
    layers: tuple[int | str, ...] = setting(
        "layer of each whose features are matched: middle, a stage's number, a module's name (empty: middle)",
        (),
    )
    steps_per_network: int = setting("updates of the generator with one network, then the next is drawn", 781)
    net_steps: int = setting("its SGD steps before each update of the generator (0: it stays untrained)", 16)
    batch_size: int = setting("real images per step of its own", 64)
    learning_rate: float = setting("of its SGD", 0.01)
    momentum: float = setting("of its SGD", 0.9)
    weight_decay: float = setting("of its SGD", 5e-4)
    augment: Augmentation = choice(AUGMENTATIONS, "augmentation of its real images", InTurn())

    def __post_init__(self) -> None:
        require(bool(self.networks), "networks", "empty", ", ".join(NETWORKS.members))
        require(
            len(self.layers) in (0, len(self.networks)), "layers",
            f"{len(self.layers)} for {len(self.networks)} networks", "one for each, or none",
        )  # fmt: skip
        for name in ("steps_per_network", "batch_size"):
            require(getattr(self, name) >= 1, name, f"got {getattr(self, name)}", "1 or more")
        require(self.net_steps >= 0, "net_steps", f"got {self.net_steps}", "0 or more")
        require(self.learning_rate > 0, "learning_rate", f"got {self.learning_rate}", "above 0")

    def layer(self, number: int) -> str:
        """The layer of network ``number`` as it was asked for."""
        return str(self.layers[number]) if self.layers else "middle"

    def place(self, step: int) -> tuple[int, int]:
        """Which network in order is in use at an outer step, and how many steps it was before."""
        return divmod(step, self.steps_per_network)

    def drawn(self, turn: int, seed: int) -> int:
        """The kind of the network that is in use in a turn."""
        return int(torch.randint(len(self.networks), (1,), generator=generator(seed, "pool", turn, "kind")))


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Generative:
    """Distil a generator by global structure and local details (arXiv 2404.17732; DiM, arXiv 2303.04707)."""

    name: str = setting("the method's name in reports", "generative")
    generator: ConvGenerator = setting("noise and class to image", ConvGenerator())
    discriminator: ConvDiscriminator = setting("real or generated, and which class", ConvDiscriminator())
    gan: GanTraining = setting("the conditional GAN before any matching", GanTraining())
    batch_size: int = setting("real images, and as many generated ones, per outer step", 64)
    generator_optimizer: Adam = setting("optimiser of the generator, matched", Adam(5e-6))
    discriminator_optimizer: Adam = setting("optimiser of the discriminator meanwhile", Adam(5e-6))
    discriminator_steps: int = setting("updates of the discriminator for each of the generator", 1)
    gradient_penalty: float = setting("weight of the discriminator's gradient penalty", 10.0)
    classification_weight: float = setting("weight of the class losses of both networks", 1.0)
    global_weight: float = setting("weight of the difference of logits (0: left out)", 0.01)
    local_weight: float = setting("weight of the difference of middle-layer features (0: left out)", 0.001)
    logits: LogitForm = setting("logits that are compared: as they are, or their log-softmax", "log_softmax")
    features: FeatureForm = setting(
        "how features are compared: sum of absolute differences of batch means, mean of their squares, or "
        "mean of squared differences image by image", "l1_sum",
    )  # fmt: skip
    pool: Pool = setting("networks that compare", Pool())
    augment: Augmentation = choice(
        AUGMENTATIONS, "of real and generated images alike before they are compared",
        InTurn(("color", "crop", "cutout"), shared=True),
    )  # fmt: skip
    ema_decay: float | None = setting("average the generator over steps with this decay (null: no)", None)
    judged_by: Literal["fresh", "frozen"] = setting(
        "what a step is chosen by on validation: networks that see new images in every epoch, or one frozen "
        "sample", "fresh",
    )  # fmt: skip
    precision: Literal["float32", "bf16"] = setting("arithmetic of all networks", "float32")

    def __post_init__(self) -> None:
        for name in ("batch_size", "discriminator_steps"):
            require(getattr(self, name) >= 1, name, f"got {getattr(self, name)}", "1 or more")
        for name in ("gradient_penalty", "classification_weight", "global_weight", "local_weight"):
            require(getattr(self, name) >= 0, name, f"got {getattr(self, name)}", "0 or more")
        if self.ema_decay is not None:
            require(0 < self.ema_decay < 1, "ema_decay", f"got {self.ema_decay}", "between 0 and 1, or null")

    @property
    def matched(self) -> bool:
        """Whether the pool is asked at all."""
        return self.global_weight > 0 or self.local_weight > 0

    def phase(self, key: Literal["gan", "distil"]) -> Phase:
        """The GAN's own training, or the distillation."""
        if key == "gan":
            gan = self.gan
            return Phase(key, gan.batch_size, gan.generator_optimizer, gan.discriminator_optimizer, False)
        return Phase(
            key, self.batch_size, self.generator_optimizer, self.discriminator_optimizer, self.matched
        )

    def check(self, num_expert_epochs: int) -> None:
        """Experts play no part."""

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

    def _critic_draw(
        self, number: int, phase: Phase, seed: int, num_real: int, num_classes: int
    ) -> CriticDraw:
        rng = generator(seed, phase.key, "discriminator", number)
        real = endless_batch(num_real, phase.batch_size, number, seed, phase.key, "order")
        noise = torch.randn(len(real), self.generator.noise_size, generator=rng)
        classes = torch.randint(num_classes, (len(real),), generator=rng)
        return CriticDraw(real, noise, classes, torch.rand(len(real), generator=rng))


def standing_noise(noise_size: int, num_classes: int, batches: int = 8, size: int = 128) -> list[Tensor]:
    """What the statistics of a finished generator are taken from: the same noise always, all classes."""
    rng = generator(0, "standing statistics")
    classes = torch.arange(size) % num_classes
    return [
        conditioned(torch.randn(size, noise_size, generator=rng), classes, num_classes)
        for _ in range(batches)
    ]


def refuse_mixing(network: nn.Module, where: str) -> None:
    """Refuse a network that looks at several images at once where ranks see parts of a batch.

    Raises:
        ConfigError: so it is.
    """
    mixing = [n for n, m in network.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    require(
        not mixing, where, f"layer {mixing[0] if mixing else ''} normalises over the batch, of which a rank "
        "sees a part", "norms of each image alone, such as instance or group norm",
    )  # fmt: skip
