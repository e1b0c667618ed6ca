"""A generator as the outer loop sees it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor

from distributed_dd.stages.checkpoint import Saved
from distributed_dd.stages.distill import Tensors
from distributed_dd.stages.generative_worker import AVERAGE
from distributed_dd.stages.ports import Cluster


def theta_of(tensors: Tensors) -> Tensor:
    """The parameters (P,) of the generator that counts: its average over steps, where there is one."""
    return tensors.get(AVERAGE, tensors["generator.theta"])


@dataclass(frozen=True)
class GeneratorSubject:
    """Both networks of a GAN with Adam's state.

    Attributes:
        make: all that before the first outer step.
        judge, draw: what `score` and `show` do.
    """

    make: Callable[[], Tensors]
    judge: Callable[[Tensors, int, Cluster], float]
    draw: Callable[[int, Tensors], None]
    no_facts: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def starting(self) -> Tensors:
        """As a checkpoint holds it."""
        return self.make()

    def read(self, saved: Saved) -> Tensors:
        """All of it."""
        return {name: saved.value(name) for name in sorted(saved.names())}

    def score(self, tensors: Tensors, num_networks: int, cluster: Cluster) -> float:
        """Mean validation accuracy of networks trained on what the generator gives."""
        return self.judge(tensors, num_networks, cluster)

    def show(self, step: int, start: Tensors, tensors: Tensors) -> None:
        """Images of every class."""
        self.draw(step, tensors)

    def note(self, metrics: Mapping[str, float]) -> str:
        """How far the discriminator tells real from generated, and what the pool sees."""
        told = [f"distance {metrics['discriminator_distance']:.3g}"]
        told += [
            f"{name} {metrics[f'generator_{name}']:.3g}"
            for name in ("global", "local")
            if f"generator_{name}" in metrics
        ]
        return ", ".join(told)

    def count(self, step: int, metrics: dict[str, float], facts: dict[str, Any]) -> Iterator[str]:
        """Nothing to be counted."""
        return iter(())
