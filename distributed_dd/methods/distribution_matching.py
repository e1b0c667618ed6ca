"""Distribution matching (DM, Zhao and Bilen, WACV 2023): class means of features under random networks."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from distributed_dd.evaluation.product import Tensors
from distributed_dd.evaluation.words import Words
from distributed_dd.family import choice, setting
from distributed_dd.learning.augment import AUGMENTATIONS, Augmentation, Siamese
from distributed_dd.learning.chance import generator
from distributed_dd.learning.device import device
from distributed_dd.learning.flat import flatten
from distributed_dd.learning.networks import initialised
from distributed_dd.learning.networks.blocks import FeatureNetwork, feature_layer
from distributed_dd.learning.update_rules import SGD, UPDATE_RULES, UpdateRule, check_learns
from distributed_dd.outer.by_class import ByClass, check_no_mixing, check_shared, division_by_class, notes_on_batches
from distributed_dd.outer.division import Division, mixing_layers
from distributed_dd.outer.method import Seat
from distributed_dd.outer.scale import Scale, Work
from distributed_dd.outer.set_method import SetMethod, work_of_a_set
from distributed_dd.outer.starting import PLAIN_STARTS, PlainStart, RealImages, hard_labelled
from distributed_dd.outer.world import World


@dataclass(frozen=True, kw_only=True)
class DistributionMatching(SetMethod):
    """Match class means of features under random networks (DM, WACV 2023)."""

    name: str = setting("the method's name in reports", "dm")
    image_optimizer: UpdateRule = choice(UPDATE_RULES, "update rule of the images", SGD(1.0, 0.5))
    batch_size: int = setting("real images of each class per outer step (all, where there are fewer)", 256, at_least=1)
    start: PlainStart = choice(PLAIN_STARTS, "starting images", RealImages())
    augment: Augmentation = choice(AUGMENTATIONS, "of real and synthetic images of a class alike", Siamese(shared=True))

    words: ClassVar[Words] = Words(
        losses={"matching_loss": "matching loss"},
        noted={"matching_loss": "matching loss"},
        parameters={"method.image_optimizer.learning_rate": "lr images"},
    )

    def __post_init__(self) -> None:
        check_shared(self.augment)
        check_learns(self.image_optimizer, "image_optimizer")

    def optimizers(self) -> dict[str, UpdateRule]:
        """Of the images alone."""
        return {"images": self.image_optimizer}

    def starting_set(self, world: World) -> Tensors:
        """As `start` says, with hard labels."""
        return hard_labelled(self.start, world)

    def check(self, world: World) -> None:
        """Refuse a network whose features are not known, or that looks at several images at once."""
        check_no_mixing(mixing_layers(_layers(world), "network"))
        feature_layer(_layers(world))

    def notes(self, world: World) -> list[str]:
        """Classes that have fewer real images than a batch."""
        return notes_on_batches(world, self.batch_size)

    def steps(self, world: World, seat: Seat) -> "DistributionSteps":
        """A fresh network in every outer step."""
        return DistributionSteps(self, world, seat)

    def division(self, world: World) -> Division:
        """Classes, or rows."""
        return division_by_class(world)

    def work(self, scale: Scale) -> Work:
        """Real images forward; the set forward and back."""
        num_classes = scale.facts.num_classes
        passes = num_classes * self.batch_size + 3 * num_classes * scale.images_per_class
        return work_of_a_set(scale, passes)


class DistributionSteps(ByClass):
    """The statistic of a class is the mean of its features under the network of the outer step."""

    def __init__(self, method: DistributionMatching, world: World, seat: Seat) -> None:
        super().__init__(world, seat, method.batch_size, method.augment)
        layers = _layers(world).to(device()).requires_grad_(False)
        self.network = FeatureNetwork(layers, feature_layer(layers))
        self.theta_P = flatten(layers)

    def begin(self, step: int, like: Tensor) -> None:
        """Draw the network of this outer step; it stays untrained."""
        rng = generator(self.world.seed, "outer step", step, "network")
        world = self.world
        fresh = initialised(world.network, world.image_shape, world.num_classes, rng)
        self.theta_P = flatten(fresh).to(like.device, like.dtype)

    def statistic(self, images: Tensor, number: int) -> Tensor:
        """Mean features (F,) before the classifier."""
        return self.network.look(self.theta_P, images)[1].flatten(1).mean(0)

    def distance(self, synthetic: Tensor, real: Tensor) -> Tensor:
        """Squared, summed over features: the published learning rates belong to sums."""
        return (synthetic - real).square().sum()


def _layers(world: World) -> nn.Module:
    return initialised(world.network, world.image_shape, world.num_classes, generator(0, "layout"))
