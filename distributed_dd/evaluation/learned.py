"""Whether anything was learned: a run that changed nothing, or hardly anything, says so and why."""

from collections.abc import Iterable, Mapping
from typing import Any

FEW = 0.5
"""Below this share of outer steps that changed the set, the report says how few they were."""
FIX = (
    "lower method.student_learning_rate (or method.image_optimizer.learning_rate, where the first steps passed), or "
    "raise method.gate"
)


def changes(metrics: Iterable[Mapping[str, Any]], loss: str, unchanged: bool) -> dict[str, Any]:
    """What a report keeps of it.

    Args:
        metrics: of the outer steps; those of methods with a gate say how many students it ``accepted``.
        loss: which of the metrics the gate looks at. unchanged: whether the result is its start.
    """
    num_gated, num_skipped, last = 0, 0, None
    for values in metrics:
        if "accepted" in values:
            num_gated += 1
            if not values["accepted"]:
                num_skipped, last = num_skipped + 1, values.get(loss)
    kept: dict[str, Any] = {"unchanged": True} if unchanged else {}
    if num_skipped:
        kept["gate"] = {"num_outer_steps": num_gated, "num_skipped": num_skipped, "loss_at_last": last}
    return kept


def in_words(report: Mapping[str, Any], loss: str = "loss") -> list[str]:
    """A line where nothing was learned, or where few outer steps changed the set; else none."""
    unchanged, gate = report.get("unchanged", False), report.get("gate")
    if gate is None:
        return ["Nothing was learned: the set is the one that it began with."] if unchanged else []
    num, skipped, last = gate["num_outer_steps"], gate["num_skipped"], gate["loss_at_last"]
    if not unchanged and num - skipped >= FEW * num:
        return []
    value = "" if last is None else f" ({last:.2f} at the last)"
    above = f"the {loss}{value} was above method.gate; {FIX}."
    how_many = f"{num - skipped} of {num} outer steps changed the set. In the other {skipped} {above}"
    return [f"{'Nothing was learned:' if unchanged else 'Only'} {how_many}"]
