"""The loss of a method of sets at a given set, measured by the method's own outer steps, which change nothing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from torch import Tensor

from distributed_dd.learning.device import device
from distributed_dd.outer.learner import Held
from distributed_dd.outer.method import Seat, Steps
from distributed_dd.outer.stored_choice import stored_in
from distributed_dd.outer.world import World
from distributed_dd.unroll import Alone


class Measuring(Protocol):
    """The part of a method that is needed."""

    def steps(self, world: World, seat: Seat) -> Steps: ...


@dataclass(frozen=True)
class SetLosses:
    """Asks for the loss of outer steps at any sets, in one process.

    Attributes:
        world: what ranks are told. name: of the loss among what an outer step measures.
    """

    method: Measuring
    world: World
    name: str

    def __call__(self, draw: range, sets: Sequence[Mapping[str, Tensor]]) -> list[list[float]]:
        """For each set the loss of each outer step of ``draw``; not finite where a step's is not."""
        ranks = Alone()
        stored = lambda num_parameters, num_steps: stored_in("auto", num_parameters, num_steps, ranks)  # noqa: E731
        steps = self.method.steps(self.world, Seat(ranks, sets[0]["classes"], stored))
        steps.many_sets = True
        return [list(self._stretch(steps, tensors, draw)) for tensors in sets]

    def _stretch(self, steps: Steps, tensors: Mapping[str, Tensor], draw: range) -> Iterator[float]:
        """One stretch: between its steps the method may learn from the set."""
        steps.load({})
        unchanged = Unchanged(tensors)
        for step in draw:
            found = steps.gradient(step, unchanged.read(), None)
            yield float(steps.verdict(found.parts).metrics[self.name])
            for name, rows in found.renewed.items():
                unchanged.replace(name, rows)
            if step + 1 < draw.stop:
                steps.updated(step, unchanged)


class Unchanged:
    """A learner that learns nothing: it holds a set as it is."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = {name: tensor.to(device()) for name, tensor in tensors.items()}
        self.num_rows = len(tensors["classes"])

    def read(self) -> Held:
        """Everything but the classes."""
        return Held(0, {name: tensor for name, tensor in self._tensors.items() if name != "classes"})

    def step(self, gradients: Mapping[str, Tensor], rate_factor: float = 1.0) -> NoReturn:
        """Never: the set is asked about, not learned."""
        raise TypeError("this set is not learned")

    def lift(self, name: str, floor: float) -> NoReturn:
        """Never."""
        raise TypeError("this set is not learned")

    def replace(self, name: str, rows: Tensor) -> None:
        """Rows that the method makes anew in each outer step, such as labels of a target network."""
        self._tensors[name] = rows

    def value(self, name: str) -> float:
        """A number of the set."""
        return self._tensors[name].item()

    def kept(self) -> dict[str, Tensor]:
        """Everything, copied."""
        return {name: tensor.clone() for name, tensor in self._tensors.items()}

    def slots(self) -> dict[str, Any]:
        """None: no update rule is at work."""
        return {}

    def close(self) -> None:
        """Nothing outlives it."""
