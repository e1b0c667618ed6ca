"""The settings of feature alignment, and what follows from them alone."""

from dataclasses import dataclass
from typing import Literal

from distributed_dd.family import choice, require, setting
from distributed_dd.learning.augment import AUGMENTATIONS, Augmentation, Identity
from distributed_dd.learning.update_rules import SGD, UPDATE_RULES, UpdateRule, check_learns
from distributed_dd.methods.feature_alignment.layers import weights_of
from distributed_dd.methods.feature_alignment.watched import Watched
from distributed_dd.outer.by_class import check_shared
from distributed_dd.outer.starting import PLAIN_STARTS, Noise, PlainStart


@dataclass(frozen=True, kw_only=True)
class AlignmentSettings:
    """What can be set. Defaults are the published settings; the published loop of updates has no bound."""

    name: str = setting("the method's name in reports", "cafe")
    image_optimizer: UpdateRule = choice(UPDATE_RULES, "update rule of the images", SGD(0.1, 0.5))
    halved_at: tuple[int, ...] = setting("turns from which its rate is half of that before", (1200, 1600, 1800))
    batch_size: int = setting("real images of each class per outer step (all, where there are fewer)", 256, at_least=1)
    weights: tuple[float, ...] = setting(
        "of squared distances between class means, layer by layer: one for each block before it is pooled, from the "
        "image on, and two for the pooled output of the last block. Empty: 0.1 for all blocks but the last, 1 for it "
        "and for these two, as published for three blocks",
        (),
    )
    classification_weight: float = setting(
        "of the sum of cross-entropies of real images, classified by the class means of the set", 0.01
    )
    watched: Literal["carried", "plain"] = setting(
        "what decides when a turn and the network's epochs end: accuracies, or as in the published code accuracies "
        "with a tenth of the value before, from 0 on",
        "carried",
    )
    num_accuracies: int = setting("newest values that decide together, none before there are so many", 10, at_least=2)
    turn_spread: float = setting("a turn ends where they lie together more closely than this", 0.04)
    max_updates_per_turn: int = setting("outer steps with one network at most", 50, at_least=1)
    inner_spread: float = setting("the network's epochs on the set end where they lie further apart than this", 0.03)
    max_inner_epochs: int = setting(
        "epochs of the network on the set after an outer step at most; 10 are what the published code comes to, "
        "wherever the accuracy is above 0.3",
        10,
        at_least=1,
    )
    num_watched_images: int = setting(
        "real images of each class that an accuracy is of (all, where there are fewer)", 128, at_least=1
    )
    network_batch_size: int = setting("synthetic images per step of the network", 256, at_least=1)
    network_learning_rate: float = setting("of these steps, SGD without momentum", 0.01, above=0)
    start: PlainStart = choice(PLAIN_STARTS, "starting images", Noise())
    augment: Augmentation = choice(
        AUGMENTATIONS, "of real and synthetic images of a class alike (with DSA: dsa, shared)", Identity()
    )
    network_augment: Augmentation = choice(AUGMENTATIONS, "where the network learns from the set", Identity())

    def __post_init__(self) -> None:
        check_shared(self.augment)
        check_learns(self.image_optimizer, "image_optimizer")
        require(not self.weights or any(self.weights), "weights", "all are 0: no layer would count", "one above 0")

    @property
    def nothing_watched(self) -> Watched:
        """What is watched, before the first value."""
        return Watched(self.num_accuracies, self.watched == "carried")

    @property
    def watches_turns(self) -> bool:
        """Whether accuracies can end a turn: not where the most updates come before enough of them."""
        return self.max_updates_per_turn > self.num_accuracies

    @property
    def watches_epochs(self) -> bool:
        """Whether accuracies can end the network's epochs on the set."""
        return self.max_inner_epochs > self.num_accuracies

    def weights_at(self, num_blocks: int) -> tuple[float, ...]:
        """Of the layers of a network of so many blocks."""
        return weights_of(self.weights, num_blocks)

    def rate(self, turn: int) -> float:
        """What the images' learning rate is multiplied by in a turn."""
        return float(0.5 ** sum(turn >= first for first in self.halved_at))
