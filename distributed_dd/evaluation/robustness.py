"""DD-Ranking's scores, from the rows of an evaluation (arXiv 2505.13300)."""

from collections.abc import Mapping
from math import exp

WEIGHT = 0.5


def scores(accuracies: Mapping[str, float], soft: bool) -> dict[str, float]:
    """Scores that the rows at hand allow; accuracies in [0, 1] by row name.

    ``hard_label_recovery`` (HLR): full data less the distilled images with hard labels; smaller is
    better. ``improvement_over_random`` (IOR): the set less random real images, both with the method's own
    kind of labels. ``label_robust`` (LRS) and ``augmentation_robust`` (ARS) weigh two such differences
    equally and map them to [0, 1].
    """
    control = "random_real_soft_labels" if soft else "random_real"
    by_name: dict[str, float] = {}

    def difference(name: str, better: str, worse: str) -> float | None:
        if better not in accuracies or worse not in accuracies:
            return None
        by_name[name] = accuracies[better] - accuracies[worse]
        return by_name[name]

    recovery = difference("hard_label_recovery", "full_data", "distilled_hard_labels")
    improvement = difference("improvement_over_random", "distilled", control)
    plain = difference("improvement_without_augmentation", "distilled_no_augmentation", f"{control}_no_augmentation")
    if improvement is not None and recovery is not None:
        by_name["label_robust"] = normalised(WEIGHT * improvement - (1 - WEIGHT) * recovery)
    if improvement is not None and plain is not None:
        by_name["augmentation_robust"] = normalised(WEIGHT * improvement + (1 - WEIGHT) * plain)
    return by_name


def normalised(value: float) -> float:
    """[-1, 1] to [0, 1], steeper where the value is high."""
    return (exp(value) - exp(-1)) / (exp(1) - exp(-1))
