"""A synthetic set as the outer loop sees it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from distributed_dd.stages.checkpoint import Saved
from distributed_dd.stages.distill import Tensors
from distributed_dd.stages.ports import Cluster

SKIPPED_IN_A_ROW = 25


@dataclass(frozen=True)
class SetSubject:
    """A set of images, labels and learning rate.

    Attributes:
        make: the set before the first outer step.
        averaged: whether the average over outer steps is what is scored and kept.
        judge, draw: what `score` and `show` do.
    """

    make: Callable[[], Tensors]
    averaged: bool
    judge: Callable[[Tensors, int, Cluster], float]
    draw: Callable[[int, Tensors, Tensors], None]
    no_facts: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"skipped": 0, "skipped_in_a_row": 0, "floored": 0}
    )

    def starting(self) -> Tensors:
        """Images, labels, classes, learning rate."""
        return self.make()

    def read(self, saved: Saved) -> Tensors:
        """The set, or its average, which is not there before the first outer step."""
        return saved.whole(self.averaged and "average.images" in saved.names())

    def score(self, tensors: Tensors, num_networks: int, cluster: Cluster) -> float:
        """Mean validation accuracy of networks trained on the set."""
        return self.judge(tensors, num_networks, cluster)

    def show(self, step: int, start: Tensors, tensors: Tensors) -> None:
        """Start beside result."""
        self.draw(step, start, tensors)

    def note(self, metrics: Mapping[str, float]) -> str:
        """The matching loss."""
        return f"matching loss {metrics['matching_loss']:.4f}"

    def count(self, step: int, metrics: dict[str, float], facts: dict[str, Any]) -> Iterator[str]:
        """Steps that changed nothing, and rates at their floor: said once, or hours would look like work."""
        skipped, floored = not metrics["accepted"], metrics.pop("floored")
        facts["skipped"] += skipped
        facts["skipped_in_a_row"] = facts["skipped_in_a_row"] + 1 if skipped else 0
        if facts["skipped_in_a_row"] == SKIPPED_IN_A_ROW:
            yield (
                f"warning: outer step {step}: the last {SKIPPED_IN_A_ROW} changed nothing, the matching loss "
                f"({metrics['matching_loss']:.2f}) is above method.gate; lower method.student_learning_rate "
                "or raise the gate"
            )
        if floored and not facts["floored"]:
            yield (
                f"warning: outer step {step}: the student learning rate fell to its floor "
                f"{metrics['student_learning_rate']:g}; lower method.rate_optimizer.learning_rate"
            )
        facts["floored"] += bool(floored)
