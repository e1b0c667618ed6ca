"""The rows of a report: sets and controls, each scored by several fresh networks."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor

from distributed_dd.data import Images
from distributed_dd.errors import DivergedError
from distributed_dd.evaluation.fits import Contest, Fit, ImageStream, Outcome, score
from distributed_dd.evaluation.scored import Scored
from distributed_dd.evaluation.settings import Evaluation
from distributed_dd.evaluation.teacher import teacher_of
from distributed_dd.learning.networks import NETWORKS, Network
from distributed_dd.outer.ports import Cluster, Progress


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A row of the report before it is scored.

    ``sets`` holds one (images, labels) per network, or a single one for all; images may be a source of new
    ones. Learning rates beyond the first are alternatives; validation decides. With ``targets`` soft labels are
    targets of a regression as they are, and no logits.
    """

    name: str
    label_kind: str
    sets: tuple[tuple[Tensor | ImageStream, Tensor], ...]
    learning_rates: tuple[float, ...]
    num_epochs: int | None = None
    augmented: bool = True
    targets: bool = False

    def fit(self, member: int, rate: float) -> Fit:
        """Network number ``member`` of this row."""
        images, labels = self.sets[member % len(self.sets)]
        return Fit(
            images=images,
            labels=labels,
            learning_rate=rate,
            member=member,
            num_epochs=self.num_epochs,
            augmented=self.augmented,
            targets=self.targets,
            row=self.name,
        )


def choose_rates(
    candidates: Sequence[Candidate],
    num_networks: int,
    contest: Contest,
    cluster: Cluster,
    progress: Progress,
    scored: Scored | None = None,
) -> tuple[list[float], int]:
    """For each row the learning rate that does best on validation, and the peak bytes of its fits.

    Rows with one rate cost nothing.
    """
    fits, owners = [], []
    for number, candidate in enumerate(candidates):
        if len(candidate.learning_rates) > 1:
            for rate in candidate.learning_rates:
                fits += [candidate.fit(1000 + member, rate) for member in range(num_networks)]
                owners += [(number, rate)] * num_networks
    outcomes = score(fits, contest, cluster, progress, "choosing rates (validation)", scored) if fits else []
    totals: dict[tuple[int, float], float] = {}
    for owner, outcome in zip(owners, outcomes, strict=True):
        totals[owner] = totals.get(owner, 0.0) + outcome.accuracy
    rates = []
    for number, candidate in enumerate(candidates):
        scores = {rate: totals.get((number, rate), 0.0) for rate in candidate.learning_rates}
        rates.append(max(scores, key=lambda rate: scores[rate]))
    return rates, max((outcome.peak_bytes for outcome in outcomes), default=0)


def row(name: str, network: str, label_kind: str, accuracies: Sequence[float]) -> dict:
    """One row of ``report.json``: mean and sample standard deviation over networks, in [0, 1]."""
    spread = stdev(accuracies) if len(accuracies) > 1 else 0.0
    return {
        "name": name,
        "network": network,
        "labels": label_kind,
        "accuracy_mean": mean(accuracies),
        "accuracy_std": spread,
        "accuracies": list(accuracies),
        "num_networks": len(accuracies),
    }


def _by_class(confusions: Sequence[Any]) -> dict[str, Any]:
    """Accuracy by class, and how many images of a class were taken for which, over all networks of a row."""
    counts = torch.tensor(confusions).sum(0)
    right = counts.diag() / counts.sum(1).clamp(min=1)
    return {"per_class": [round(value, 6) for value in right.tolist()], "confusion": counts.tolist()}


def _diverged(outcomes: Sequence[Outcome], where: str) -> dict[str, int]:
    """How many networks of a row diverged; they count as right about nothing."""
    num_diverged = sum(outcome.diverged for outcome in outcomes)
    if num_diverged == len(outcomes):
        raise DivergedError(
            where,
            f"all {num_diverged} networks that were trained on it ended with numbers that are not finite",
            fix="lower evaluate.optimizer.learning_rate; where the set's own rate was learned, lower the learning "
            "rates in method",
        )
    return {"num_diverged": num_diverged} if num_diverged else {}


def score_rows(
    rows: list[Candidate],
    network: Network,
    evaluation: Evaluation,
    seed: int,
    material: Any,
    cluster: Cluster,
    progress: Progress,
    scored: Scored | None = None,
) -> tuple[list[dict[str, Any]], int]:
    """Rows of ``report.json``, and the peak bytes of the tasks that made them.

    Learning rates that a row leaves open are chosen on validation; then the test split is read, by
    all rows together. Nothing afterwards depends on what it said.

    Args:
        rows: the first is of the set itself, whose size decides where a protocol counts in updates.
        scored: the networks that are scored already, where a kill may come between.

    Raises:
        DivergedError: all networks of a row ended with numbers that are not finite.
    """
    num, kind = evaluation.num_networks, NETWORKS.kind_of(network)
    num_classes, num_images = material.splits.num_classes, len(rows[0].sets[0][1])
    teacher = teacher_of(network, evaluation, seed, material, cluster, progress)

    def contest(judge: Images) -> Contest:
        return Contest(
            network=network,
            recipe=evaluation.recipe(num_classes, num_images),
            seed=seed,
            num_classes=num_classes,
            judge=judge,
            teacher=teacher,
        )

    choosing = contest(material.validation)
    rates, peak = choose_rates(rows, evaluation.num_validation_networks, choosing, cluster, progress, scored)
    fits = [r.fit(member, rate) for r, rate in zip(rows, rates, strict=True) for member in range(num)]
    outcomes = score(fits, contest(material.test), cluster, progress, f"{kind} (test)", scored)
    result = []
    for number, (candidate, rate) in enumerate(zip(rows, rates, strict=True)):
        own = outcomes[number * num : (number + 1) * num]
        entry = row(candidate.name, kind, candidate.label_kind, [max(0.0, outcome.accuracy) for outcome in own])
        if any(outcome.confusion for outcome in own):
            entry |= _by_class([outcome.confusion for outcome in own if outcome.confusion])
        result.append({**entry, "learning_rate": rate, **_diverged(own, f"{candidate.name}, learning rate {rate:g}")})
    return result, max([peak, *(outcome.peak_bytes for outcome in outcomes)])
