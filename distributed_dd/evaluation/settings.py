"""How results are scored: the settings of a configuration's ``evaluate`` group."""

from dataclasses import dataclass, replace

from distributed_dd.evaluation.protocols import PROTOCOLS, Ours, ScoringProtocol
from distributed_dd.family import choice, did_you_mean, require, setting
from distributed_dd.learning.loop import Recipe
from distributed_dd.learning.optimizers import OPTIMIZERS, SGD, Optimizer

RULES = ("herding", "kmeans", "kmeans_centroids", "k_center")
"""By which real images may be chosen, as networks see their pixels; `coresets` has them."""
EXPERT_RULES = ("herding_features", "kmeans_features", "k_center_features", "el2n", "forgetting")
"""By which they may be chosen where there are experts: in an expert's features, or by how hard experts find them."""


@dataclass(frozen=True, kw_only=True)
class Evaluation(Recipe):
    """How a set is scored: fresh networks, trained by one frozen recipe."""

    protocol: ScoringProtocol = choice(
        PROTOCOLS, "way of scoring; those of papers have recipes of their own in place of this one", Ours(), added=True
    )
    num_epochs: int = setting("passes over the set", 1001, at_least=1, at_most=1_000_000)
    batch_size: int = setting("images per step", 128, at_least=1)
    drop: float = setting("learning rate factor after epoch num_epochs // 2 + 1", 0.1, at_most=1)
    optimizer: Optimizer = choice(
        OPTIMIZERS, "update rule; its rate is used where none was distilled", SGD(0.01, 0.9, 5e-4)
    )
    num_networks: int = setting("fresh networks per row of the report", 5, at_least=1, at_most=10_000)
    num_validation_networks: int = setting(
        "fresh networks for every choice on validation", 2, at_least=1, at_most=10_000
    )
    every: int = setting("outer steps between scores on validation", 500, at_least=1)
    controls: tuple[str, ...] = setting(
        f"real images that the report scores beside random ones: any of {', '.join(RULES)}; with experts also "
        f"{', '.join(EXPERT_RULES)}",
        ("herding", "kmeans", "kmeans_centroids"),
        identity=False,
    )
    num_epochs_full_data: int = setting(
        "passes over all real images, for the full-data row", 100, at_least=1, at_most=1_000_000
    )

    def __post_init__(self) -> None:
        known = (*RULES, *EXPERT_RULES)
        for rule in self.controls:
            require(rule in known, "controls", f"unknown {rule!r}{did_you_mean(rule, known)}", ", ".join(known))

    def recipe(self, num_classes: int, num_images: int) -> Recipe:
        """How networks are trained on a set of so many images, by the protocol."""
        return self.protocol.recipe(self.bare(), num_classes, num_images).fitted_to(num_images)

    def tried(self, num_networks: int, controls: tuple[str, ...], protocol: ScoringProtocol | None) -> "Evaluation":
        """This with other networks and controls, and by another protocol where one is named."""
        changed = replace(self, num_networks=num_networks, controls=controls)
        return changed if protocol is None else replace(changed, protocol=protocol)

    @property
    def takes_targets(self) -> bool:
        """Whether a set's learned targets are what networks learn, as they are: by a squared error, with own labels."""
        return self.protocol.labels == "own" and self.recipe(2, 1).takes_targets

    @property
    def own_rate(self) -> float:
        """The learning rate of the protocol's recipe."""
        return self.recipe(2, 1).optimizer.learning_rate

    def rate_of_set(self, learned: float) -> float:
        """The learning rate of a set that learned one."""
        return learned if self.protocol.learned_rate else self.own_rate

    def rates_of_control(self, learned: float) -> tuple[float, ...]:
        """Those that a control may take, whichever does better on validation."""
        return tuple(dict.fromkeys((self.own_rate, self.rate_of_set(learned))))
