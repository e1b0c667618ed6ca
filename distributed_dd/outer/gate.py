"""A gate on the loss: what is above it changes nothing, and people hear of it where nothing passes for long."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor

from distributed_dd.unroll import Ranks

SKIPPED_IN_A_ROW = 25
NO_SKIPS: Mapping[str, Any] = MappingProxyType({"skipped": 0, "skipped_in_a_row": 0})
"""What `count_skipped` counts, before the first outer step."""


class Gated:
    """Settings of a method whose outer steps average over students, each of which the gate may leave out.

    Attributes:
        gate: the largest loss that may change the set; None: any may.
    """

    gate: float | None

    def accepts(self, loss: float) -> bool:
        """Whether a student with this loss may change the set."""
        return self.gate is None or loss <= self.gate

    def weigh(self, ranks: Ranks) -> Callable[[Tensor], float]:
        """From a loss to the factor of its gradient, 1 or 0.

        As the group's first rank sees it: ranks that differed would wait for each other.
        """
        return lambda loss: float(self.accepts(ranks.first_of_group(loss).item()))


def count_skipped(
    step: int, metrics: Mapping[str, float], facts: dict[str, Any], loss: str, called: str
) -> Iterator[str]:
    """Count an outer step that changed nothing; many in a row are said once, or hours would look like work.

    Args:
        loss: its name in ``metrics``, beside ``accepted``. called: what people call it.
    """
    skipped = not metrics["accepted"]
    facts["skipped"] += skipped
    facts["skipped_in_a_row"] = facts["skipped_in_a_row"] + 1 if skipped else 0
    if facts["skipped_in_a_row"] == SKIPPED_IN_A_ROW:
        yield (
            f"warning: outer step {step}: the last {SKIPPED_IN_A_ROW} changed nothing, the {called} "
            f"({metrics[loss]:.2f}) is above method.gate; lower method.student_learning_rate "
            "or raise the gate"
        )
