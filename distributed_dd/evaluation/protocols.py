"""Ways of scoring a set that papers use, by name: a table means little without the one it was made by.

A protocol says how networks are trained on a set, with which labels, and whether the set's own learning rate counts.
Those of papers have settings of their own in place of the recipe in ``evaluate``, as published unless they say;
``custom`` has them all.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from distributed_dd.family import Family, choice, setting
from distributed_dd.learning.augment import Augmentation, Gentle, Identity, Siamese
from distributed_dd.learning.criteria import CRITERIA, Criterion, CrossEntropy, Distillation, SquaredError
from distributed_dd.learning.loop import Recipe
from distributed_dd.learning.mixing import MIXINGS, CutMix, Mixing, Unmixed
from distributed_dd.learning.optimizers import OPTIMIZERS, SGD, Adam, AdamW, Optimizer
from distributed_dd.learning.published_recipe import PublishedRecipe
from distributed_dd.learning.schedules import SCHEDULES, Cosine, Drop, Schedule

Labels = Literal["own", "hard", "teacher"]


class ScoringProtocol(Protocol):
    """A way of scoring.

    Attributes:
        labels: the set's own; class numbers; or what a network trained on all real images says of each batch.
        learned_rate: whether a set's learned rate is used, where it has one.
    """

    @property
    def labels(self) -> Labels: ...

    @property
    def learned_rate(self) -> bool: ...

    def recipe(self, own: Recipe, num_classes: int, num_images: int) -> Recipe:
        """How networks are trained on a set of so many images; ``own``: the recipe in ``evaluate``."""
        ...


@dataclass(frozen=True)
class Ours:
    """The recipe in ``evaluate``, the set's own labels and its learned rate; controls choose theirs on validation."""

    labels: ClassVar[Labels] = "own"
    learned_rate: ClassVar[bool] = True

    def recipe(self, own: Recipe, num_classes: int, num_images: int) -> Recipe:
        """That one."""
        return own


@dataclass(frozen=True)
class HardLabels:
    """The recipe in ``evaluate`` with class numbers as labels for every set, whatever its own are."""

    labels: ClassVar[Labels] = "hard"
    learned_rate: ClassVar[bool] = True

    def recipe(self, own: Recipe, num_classes: int, num_images: int) -> Recipe:
        """That one."""
        return own


def _like_dc(own: Recipe, num_classes: int, num_epochs: int, batch_size: int, augment: Augmentation) -> Recipe:
    """SGD at 0.01 with momentum and weight decay, a tenth of it and a new optimiser after half of the epochs."""
    return PublishedRecipe(
        num_classes=num_classes,
        num_epochs=num_epochs,
        batch_size=batch_size,
        optimizer=SGD(0.01, 0.9, 5e-4),
        scheduled=Drop(0.1),
        augment=augment,
        precision=own.precision,
        compile=own.compile,
    )


def _siamese(own: Recipe) -> Siamese:
    """DSA with the operations that suit the data, where ``evaluate.augment`` names them."""
    return own.augment if isinstance(own.augment, Siamese) else Siamese()


@dataclass(frozen=True)
class DC:
    """As DC scores (ICLR 2021): 301 epochs of SGD at 0.01, class numbers, no augmentation.

    The source augments MNIST in a way of its own, which is left out.
    """

    labels: ClassVar[Labels] = "hard"
    learned_rate: ClassVar[bool] = False

    num_epochs: int = setting("passes over the set", 301, at_least=1, at_most=1_000_000)
    batch_size: int = setting("images per step", 256, at_least=1)

    def recipe(self, own: Recipe, num_classes: int, num_images: int) -> Recipe:
        """Nothing of ``own`` but precision and compilation."""
        return _like_dc(own, num_classes, self.num_epochs, self.batch_size, Identity())


@dataclass(frozen=True)
class DSA:
    """As DSA, DM and CAFE+DSA score (ICML 2021): DC's way with 1,001 epochs and DSA on every batch.

    DSA's operations are those of ``evaluate.augment``, which leaves flips out for digits.
    """

    labels: ClassVar[Labels] = "hard"
    learned_rate: ClassVar[bool] = False

    num_epochs: int = setting("passes over the set", 1001, at_least=1, at_most=1_000_000)
    batch_size: int = setting("images per step", 256, at_least=1)

    def recipe(self, own: Recipe, num_classes: int, num_images: int) -> Recipe:
        """Of ``own`` the operations of DSA, precision and compilation."""
        return _like_dc(own, num_classes, self.num_epochs, self.batch_size, _siamese(own))


@dataclass(frozen=True)
class DATM:
    """As DATM scores (ICLR 2024): 1,001 epochs at the learned rate, the set's labels, DSA; MTT and FTD alike."""

    labels: ClassVar[Labels] = "own"
    learned_rate: ClassVar[bool] = True

    num_epochs: int = setting("passes over the set", 1001, at_least=1, at_most=1_000_000)
    batch_size: int = setting("images per step", 128, at_least=1)

    def recipe(self, own: Recipe, num_classes: int, num_images: int) -> Recipe:
        """Of ``own`` the operations of DSA, precision and compilation."""
        return _like_dc(own, num_classes, self.num_epochs, self.batch_size, _siamese(own))


FREPO_STEPS = {10: 1000, 100: 2000, 200: 20_000, 500: 5000, 1000: 10_000, 5000: 40_000}
"""Images in a set -> updates, as FrePo's code has them; a size between two takes the larger one's."""


@dataclass(frozen=True, kw_only=True)
class FrePo:
    """As FrePo scores (NeurIPS 2022): squared error to the centred labels, Adam, warm-up and cosine, batches as stored.

    For its figures the network has no norm: ``network={kind: convnet, norm: none}``.
    """

    labels: ClassVar[Labels] = "own"
    learned_rate: ClassVar[bool] = False

    num_steps: int | None = setting("updates (null: FrePo's number for the size of the set)", None, at_least=1)
    batch_size: int = setting("images per step", 500, at_least=1)
    learning_rate: float = setting("step size of Adam", 3e-4, above=0)
    warm_up_steps: int = setting("steps in which the rate rises from 0", 500)

    def recipe(self, own: Recipe, num_classes: int, num_images: int) -> Recipe:
        """Of ``own`` precision, compilation, and whether images are flipped."""
        flipped = not isinstance(own.augment, Siamese) or "flip" in own.augment.operations
        size = next((size for size in FREPO_STEPS if size >= num_images), max(FREPO_STEPS))
        return PublishedRecipe(
            num_classes=num_classes,
            num_steps=self.num_steps or FREPO_STEPS[size],
            batch_size=self.batch_size,
            optimizer=Adam(learning_rate=self.learning_rate),
            scheduled=Cosine(self.warm_up_steps, 0.01),
            loss=SquaredError("sum"),
            augment=Gentle(flip=flipped),
            shuffled=False,
            precision=own.precision,
            compile=own.compile,
        )


@dataclass(frozen=True, kw_only=True)
class KIP:
    """As KIP's sets are tried on finite networks (NeurIPS 2021): squared error, SGD with momentum, cosine to 0.

    For its figures the network is wide and has no norm: ``network={kind: convnet, width: 1024, norm: none}``. The
    source takes the largest stable rate, which its recorded run found to be 0.0068.
    """

    labels: ClassVar[Labels] = "own"
    learned_rate: ClassVar[bool] = False

    num_steps: int = setting("updates", 5000, at_least=1)
    batch_size: int = setting("images per step", 100, at_least=1)
    learning_rate: float = setting("step size of SGD", 0.0068, above=0)
    weight_decay: float = setting("L2 penalty", 1e-3)

    def recipe(self, own: Recipe, num_classes: int, num_images: int) -> Recipe:
        """Of ``own`` precision and compilation."""
        return PublishedRecipe(
            num_classes=num_classes,
            num_steps=self.num_steps,
            batch_size=self.batch_size,
            optimizer=SGD(self.learning_rate, 0.9, self.weight_decay),
            scheduled=Cosine(0, 0.0),
            loss=SquaredError("mean"),
            augment=Identity(),
            precision=own.precision,
            compile=own.compile,
        )


@dataclass(frozen=True, kw_only=True)
class RDED:
    """Like RDED and others for large data (CVPR 2024): a teacher labels every augmented, CutMixed batch anew.

    The teacher is a network of the same kind, trained on all real images by the recipe in ``evaluate`` for
    ``num_epochs_full_data`` epochs; its labels at a temperature are what AdamW, with a cosine, learns from. Images are
    augmented as ``evaluate.augment`` says, where the source crops and flips.
    """

    labels: ClassVar[Labels] = "teacher"
    learned_rate: ClassVar[bool] = False

    num_epochs: int = setting("passes over the set", 300, at_least=1, at_most=1_000_000)
    batch_size: int = setting("images per step", 100, at_least=1)
    learning_rate: float = setting("step size of AdamW", 1e-3, above=0)
    weight_decay: float = setting("of AdamW", 0.01)
    temperature: float = setting("divides the logits of teacher and network", 20.0, above=0)
    average: float = setting("decay of the mean of parameters that is scored (0: the last ones are)", 0.0, below=1)

    def recipe(self, own: Recipe, num_classes: int, num_images: int) -> Recipe:
        """Of ``own`` augmentation, precision and compilation."""
        return PublishedRecipe(
            num_classes=num_classes,
            num_epochs=self.num_epochs,
            batch_size=self.batch_size,
            optimizer=AdamW(learning_rate=self.learning_rate, weight_decay=self.weight_decay),
            scheduled=Cosine(0, 0.0),
            loss=Distillation(self.temperature),
            mixing=CutMix(),
            average=self.average,
            augment=own.augment,
            precision=own.precision,
            compile=own.compile,
        )


@dataclass(frozen=True, kw_only=True)
class Custom:
    """A way of one's own: any combination of what the others are made of."""

    labels: Labels = setting("the set's own, class numbers (hard), or a teacher's of every batch", "own")
    learned_rate: bool = setting("train at the set's learned rate, where it has one", True)
    num_epochs: int = setting("passes over the set", 1001, at_least=1, at_most=1_000_000)
    num_steps: int | None = setting("updates in all, in place of num_epochs", None, at_least=1)
    batch_size: int = setting("images per step", 128, at_least=1)
    optimizer: Optimizer = choice(OPTIMIZERS, "update rule", SGD(0.01, 0.9, 5e-4))
    schedule: Schedule = choice(SCHEDULES, "how the learning rate changes", Drop())
    loss: Criterion = choice(CRITERIA, "what is minimised", CrossEntropy())
    mixing: Mixing = choice(MIXINGS, "images mixed with one another", Unmixed())
    average: float = setting("decay of the mean of parameters that is scored (0: the last ones are)", 0.0, below=1)
    shuffled: bool = setting("see the images in a new order in every epoch; otherwise as stored", True)

    def recipe(self, own: Recipe, num_classes: int, num_images: int) -> Recipe:
        """Of ``own`` augmentation, precision and compilation."""
        return PublishedRecipe(
            num_classes=num_classes,
            num_epochs=self.num_epochs,
            num_steps=self.num_steps,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            scheduled=self.schedule,
            loss=self.loss,
            mixing=self.mixing,
            average=self.average,
            shuffled=self.shuffled,
            augment=own.augment,
            precision=own.precision,
            compile=own.compile,
        )


LABELS = {"own": "the set's labels", "hard": "class numbers as labels", "teacher": "labels of a teacher"}


def in_words(protocol: ScoringProtocol, recipe: Recipe) -> str:
    """A protocol and the recipe that comes of it, in a sentence."""
    rate = f"{recipe.optimizer.learning_rate:g}"
    rate += " or the learned rate" if protocol.learned_rate else ""
    return (
        f"Protocol {PROTOCOLS.kind_of(protocol)}: {recipe.num_epochs:,} epochs, batches of {recipe.batch_size}, "
        f"{OPTIMIZERS.kind_of(recipe.optimizer)} at {rate}, {LABELS[protocol.labels]}."
    )


def notes(protocol: ScoringProtocol) -> list[str]:
    """What a person should know of settings that do not count."""
    if isinstance(protocol, Ours | HardLabels):
        return []
    return [
        f"note: networks are trained as evaluate.protocol={PROTOCOLS.kind_of(protocol)} says: num_epochs, batch_size, "
        "drop and optimizer in evaluate are not used"
    ]


PROTOCOLS = Family(
    "protocol",
    {
        "ours": Ours,
        "hard_labels": HardLabels,
        "dc": DC,
        "dsa": DSA,
        "datm": DATM,
        "frepo": FrePo,
        "kip": KIP,
        "rded": RDED,
        "custom": Custom,
    },
)
