"""Feature alignment as a method: its settings, and what they say of themselves."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from distributed_dd.evaluation.product import Tensors
from distributed_dd.evaluation.words import Words
from distributed_dd.family import require
from distributed_dd.learning.chance import generator
from distributed_dd.learning.flat import refuse_impure
from distributed_dd.learning.networks import initialised
from distributed_dd.learning.networks.blocks import block_names
from distributed_dd.learning.update_rules import UpdateRule
from distributed_dd.methods.feature_alignment.layers import check_blocks
from distributed_dd.methods.feature_alignment.settings import AlignmentSettings
from distributed_dd.methods.feature_alignment.steps import AlignmentSteps
from distributed_dd.outer.by_class import division_by_class, notes_on_batches
from distributed_dd.outer.division import Division, mixing_layers
from distributed_dd.outer.method import Seat
from distributed_dd.outer.scale import Scale, Work
from distributed_dd.outer.set_method import SetMethod, work_of_a_set
from distributed_dd.outer.starting import hard_labelled
from distributed_dd.outer.world import World


@dataclass(frozen=True, kw_only=True)
class FeatureAlignment(AlignmentSettings, SetMethod):
    """Align class means of all layers of a network that learns from the set, until it is steady (CAFE, CVPR 2022)."""

    words: ClassVar[Words] = Words(
        losses={"matching_loss": "alignment loss", "classification_loss": "classification by class means"},
        noted={"matching_loss": "alignment loss", "turn": "turn"},
        series={"watched_accuracy": "accuracy of the network in use, training images"},
        parameters={
            "method.image_optimizer.learning_rate": "lr images",
            "method.network_learning_rate": "lr network",
        },
    )

    def optimizers(self) -> dict[str, UpdateRule]:
        """Of the images alone."""
        return {"images": self.image_optimizer}

    def starting_set(self, world: World) -> Tensors:
        """As `start` says, with hard labels."""
        return hard_labelled(self.start, world)

    def check(self, world: World) -> None:
        """Refuse a network without blocks, or that looks at several images at once, and weights of other layers."""
        layers = _layers(world)
        for obstacle in mixing_layers(layers, "network"):
            reason = obstacle.reason.replace("of which a rank sees a part", "and classes pass the network in parts")
            require(False, obstacle.field, reason, obstacle.allowed)
        refuse_impure(layers)
        check_blocks(layers)
        self.weights_at(len(block_names(layers)))

    def notes(self, world: World) -> list[str]:
        """Classes that have fewer real images than a batch."""
        return notes_on_batches(world, self.batch_size)

    def steps(self, world: World, seat: Seat) -> AlignmentSteps:
        """A network for some outer steps, which learns from the set between them."""
        return AlignmentSteps(self, world, seat)

    def turn(self, world: World) -> int:
        """The most outer steps with one network. How many there are depends on accuracies, so that no process knows
        without the state in which turn a step lies; a look begins turns of its own as far apart as this, with fresh
        networks of the same kind."""
        return self.max_updates_per_turn

    def division(self, world: World) -> Division:
        """Rows."""
        return division_by_class(world)

    def work(self, scale: Scale) -> Work:
        """Real images forward; the set forward, and again with its gradient; checks; the network's epochs, at most."""
        num_classes = scale.facts.num_classes
        num_images = num_classes * scale.images_per_class
        num_checks = int(self.watches_turns) + self.max_inner_epochs * int(self.watches_epochs)
        passes = num_classes * (self.batch_size + num_checks * self.num_watched_images)
        return work_of_a_set(scale, passes + (4 + 3 * self.max_inner_epochs) * num_images)


def _layers(world: World) -> nn.Module:
    return initialised(world.network, world.image_shape, world.num_classes, generator(0, "layout"))
