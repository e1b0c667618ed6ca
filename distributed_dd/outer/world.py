"""What a method sees of a run: in the driver, and as it is sent to every rank."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from distributed_dd.data import Fitted, Images, Preprocessing
from distributed_dd.evaluation.settings import Evaluation
from distributed_dd.learning.networks import Network
from distributed_dd.learning.set_forms import Pixels, SetForm
from distributed_dd.outer.frozen import Frozen


class Real(Protocol):
    """The real training images.

    Attributes:
        train: as networks see them. pixels: as they are stored. fitted: from pixels to what networks see.
    """

    @property
    def train(self) -> Images: ...

    @property
    def pixels(self) -> Images: ...

    @property
    def fitted(self) -> Fitted: ...


@dataclass(frozen=True, kw_only=True)
class Carried:
    """The parts of `Real` that a method asked for, as they are sent to ranks."""

    train: Images | None = None
    pixels: Images | None = None
    fitted: Fitted | None = None


@dataclass(frozen=True, kw_only=True)
class World:
    """One experiment without its method.

    Attributes:
        real: the training images; in the driver made when first asked for.
        image_shape: (C, H, W).
        images_per_class: pictures of every class, as methods and networks see them.
        form: how they are stored.
        evaluate: how a result is scored; its optimiser has the learning rate of sets that learn none.
        output: the folder of all results.
        frozen: which rows are real images that never change.
        shared: what was made before the distillation: in the driver the method's `Prelude`, on a rank what that
            carries there.
    """

    seed: int
    network: Network
    image_shape: tuple[int, int, int]
    num_classes: int
    images_per_class: int
    num_outer_steps: int
    preprocessing: Preprocessing
    evaluate: Evaluation
    output: Path
    real: Any
    shared: Any = None
    frozen: Frozen = Frozen()
    form: SetForm = Pixels()

    @property
    def num_images(self) -> int:
        """Rows of the synthetic set as methods see it."""
        return self.images_per_class * self.num_classes

    @property
    def stored_per_class(self) -> int:
        """Images of every class that take the bytes of the set: as many real ones are its controls."""
        return self.images_per_class // self.form.pictures(self.image_shape)

    def with_shared(self, shared: Any) -> "World":
        """This world with what was made beforehand."""
        return replace(self, shared=shared)

    def for_ranks(self, carried: Collection[str]) -> "World":
        """This world with only these of the real images, to be sent to every rank."""
        real = Carried(**{name: getattr(self.real, name) for name in carried})
        shared = None if self.shared is None else self.shared.carried()
        return replace(self, real=real, shared=shared)
