"""What a distilled set is worth beside real images: compared network by network, over the same seeds."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from distributed_dd.evaluation.settings import EXPERT_RULES, RULES

CALLED = {
    "starting_set": "the starting set",
    "random_real": "random real images",
    "herding": "herding",
    "kmeans": "k-means",
    "kmeans_centroids": "k-means centroids",
    "k_center": "k-centre",
    "herding_features": "herding in features",
    "kmeans_features": "k-means in features",
    "k_center_features": "k-centre in features",
    "el2n": "EL2N",
    "forgetting": "forgetting",
}
SOFT = "_soft_labels"
MOST_NAMED = 3


def called(row: str) -> str:
    """A control, as a sentence names it."""
    soft = row.endswith(SOFT)
    return CALLED[row.removesuffix(SOFT)] + (" with the same soft labels" if soft else "")


def is_control(row: str) -> bool:
    """Whether a row is of real images, chosen or random, as many as the set has."""
    return row.removesuffix(SOFT) in CALLED


def best_coreset(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The row of chosen real images that did best; None where there is none."""
    chosen = [row for row in rows if row["name"].removesuffix(SOFT) in (*RULES, *EXPERT_RULES)]
    return max(chosen, key=lambda row: row["accuracy_mean"], default=None)


def difference(row: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[float, float]:
    """Mean and sample standard deviation of the difference in accuracy, network by network of the same seed."""
    pairs = zip(row["accuracies"], other["accuracies"], strict=True)
    differences = [own - theirs for own, theirs in pairs]
    return mean(differences), stdev(differences) if len(differences) > 1 else 0.0


def points(mean_by: float, spread: float, num_pairs: int) -> str:
    """A difference in points; one pair has no spread."""
    return f"{100 * mean_by:+.1f}" + (f" ± {100 * spread:.1f}" if num_pairs > 1 else "")


def paired_differences(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The set less each control, in [-1, 1]: mean and sample standard deviation over pairs of networks of one seed."""
    own = next((row for row in rows if row["name"] == "distilled"), None)
    if own is None or "accuracies" not in own:
        return {}
    paired = {row["name"]: difference(own, row) for row in rows if is_control(row["name"]) and "accuracies" in row}
    return {
        name: {"mean": by, "std": spread, "num_pairs": own["num_networks"]} for name, (by, spread) in paired.items()
    }


def against_controls(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line: what the set is above, and what it is not; none where there is no control, or in older reports."""
    own = next((row for row in rows if row["name"] == "distilled"), None)
    if own is None or "accuracies" not in own:
        return []
    controls = [row for row in rows if is_control(row["name"]) and "accuracies" in row]
    if not controls:
        return []
    best = max(controls, key=lambda row: row["accuracy_mean"])
    by, spread = difference(own, best)
    count = own["num_networks"]
    over = (
        f"points over {count} pairs of networks"
        if count > 1
        else "points for one pair of networks, of which no spread is known"
    )
    margin = f"{points(by, spread, count)} {over}"
    not_below = [row for row in controls if difference(own, row)[0] <= difference(own, row)[1]]
    if not not_below:
        return [f"Above the best control, {called(best['name'])}, by {margin}."]
    others = ", ".join(called(row["name"]) for row in not_below)
    if len(not_below) > MOST_NAMED:
        others = f"{len(not_below)} of {len(controls)} controls"
    return [f"Not above {others}; beside the best of the controls, {called(best['name'])}: {margin}."]
