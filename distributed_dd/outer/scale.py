"""How large an experiment is, for an estimate, and what it takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from distributed_dd.data import Facts
from distributed_dd.evaluation.settings import Evaluation
from distributed_dd.learning.networks import Network
from distributed_dd.learning.set_forms import Pixels, SetForm
from distributed_dd.outer.sharing import Sharing


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The size of an experiment.

    Attributes:
        images_per_class: pictures of every class, as networks see them. form: how they are stored.
        missing: how much of the prelude is still to be made, as `Prelude.missing`; None: all of it.
        asked: the sharing whose memory is listed first.
    """

    facts: Facts
    network: Network
    images_per_class: int
    num_outer_steps: int
    evaluate: Evaluation
    missing: float | None = None
    asked: Sharing | None = None
    form: SetForm = Pixels()

    @property
    def learned_numbers(self) -> int:
        """Numbers of all images as they are learned."""
        shape = self.facts.image_shape
        stored = self.images_per_class * self.facts.num_classes // self.form.pictures(shape)
        return stored * self.form.numbers(shape)

    @property
    def seen_numbers(self) -> int:
        """Numbers of all pictures and of their gradients, where they are not what is learned; 0 where they are."""
        num_images = self.images_per_class * self.facts.num_classes
        return 0 if self.form.plain else 2 * num_images * prod(self.facts.image_shape)


@dataclass(frozen=True)
class Work:
    """What an experiment takes, before anything starts.

    Attributes:
        lines: disk and memory, a line a topic.
        operations: floating-point operations by stage; convolutions and products only.
    """

    lines: Sequence[str]
    operations: Mapping[str, float]
