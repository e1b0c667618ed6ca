"""A learner as methods see it, whatever form the set is stored in."""

from collections.abc import Mapping

from torch import Tensor

from distributed_dd.learning.set_forms import Codec, grouped, seen
from distributed_dd.outer.learner import Held, Learner


class SeenLearner:
    """Decodes what another learner holds, once where rows are read, and brings gradients back through that.

    The other one, and what it saves, knows stored rows alone; whoever holds this one sees pictures alone. A rank keeps
    the pictures of the rows that it keeps: the engine has refused ranks among which they would be divided otherwise.
    """

    def __init__(self, stored: Learner, codec: Codec) -> None:
        self._stored, self._codec = stored, codec
        self.num_rows = stored.num_rows * codec.pictures
        self._rows: Tensor | None = None

    def read(self) -> Held:
        """Pictures and their labels; copies of no stored row."""
        held = self._stored.read()
        self._rows = held.images
        return Held(held.first * self._codec.pictures, seen(held.tensors, self._codec))

    def step(self, gradients: Mapping[str, Tensor], rate_factor: float = 1.0) -> Tensor:
        """An update of what is stored; the squared norm is that of its gradient."""
        if self._rows is None:
            raise RuntimeError("a step follows a read: gradients are taken back through what was read")
        own = {name: grouped(name, gradient, self._codec.pictures) for name, gradient in gradients.items()}
        if "images" in own:
            own["images"] = self._codec.pulled_back(self._rows, own["images"])
        self._rows = None
        return self._stored.step(own, rate_factor)

    def replace(self, name: str, rows: Tensor) -> None:
        """Labels of pictures."""
        self._stored.replace(name, grouped(name, rows, self._codec.pictures))

    def lift(self, name: str, floor: float) -> bool:
        """A number has no form."""
        return self._stored.lift(name, floor)

    def value(self, name: str) -> float:
        """A number has no form."""
        return self._stored.value(name)

    def kept(self) -> dict[str, Tensor]:
        """Pictures of the rows that this rank keeps."""
        return seen(self._stored.kept(), self._codec)

    def slots(self) -> dict[str, Tensor]:
        """Of what is stored: update rules know nothing else."""
        return self._stored.slots()

    def close(self) -> None:
        """Let go of the other one."""
        self._stored.close()
