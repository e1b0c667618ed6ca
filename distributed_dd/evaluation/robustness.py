"""DD-Ranking's scores, from the rows of an evaluation (arXiv 2505.13300)."""

from collections.abc import Mapping, Sequence
from math import exp
from statistics import fmean

WEIGHT = 0.5


def scores(accuracies: Mapping[str, float | Sequence[float]], soft: bool) -> dict[str, float]:
    """Scores that the rows at hand allow; accuracies in [0, 1] by row name, one or one for each network.

    ``hard_label_recovery`` (HLR): full data less the distilled images with hard labels; smaller is
    better. ``improvement_over_random`` (IOR): the set less random real images, both with the method's own
    kind of labels. ``label_robust`` (LRS) and ``augmentation_robust`` (ARS) weigh two such differences
    equally and map them to [0, 1]. Every score is the mean over networks, as the package ``ddranking`` takes it.
    """
    lists = {name: [value] if isinstance(value, float) else list(value) for name, value in accuracies.items()}
    if len({len(values) for values in lists.values()}) > 1:  # no network has a partner in every row
        lists = {name: [fmean(values)] for name, values in lists.items()}
    num_networks = max(map(len, lists.values()), default=0)
    each = [_of_one({name: values[i] for name, values in lists.items()}, soft) for i in range(num_networks)]
    return {name: fmean(one[name] for one in each) for name in (each[0] if each else ())}


def _of_one(accuracies: Mapping[str, float], soft: bool) -> dict[str, float]:
    """The scores of one network of each row."""
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
