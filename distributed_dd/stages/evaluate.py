"""The final scores: a distilled set beside its controls, on the test split, once."""

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from distributed_dd.distillation.chance import generator
from distributed_dd.distillation.labels import hard_logits
from distributed_dd.distillation.networks import NETWORKS, Network
from distributed_dd.distillation.starts import random_per_class
from distributed_dd.stages import scoring
from distributed_dd.stages.artefact import DistilledSet
from distributed_dd.stages.material import Material
from distributed_dd.stages.ports import Cluster, Progress
from distributed_dd.stages.scoring import Candidate, Evaluation


@dataclass(frozen=True)
class Entry:
    """What is evaluated: the set, its last step, and the experts' soft labels (n, K) of the training images.

    The last two may be absent; their rows are then left out.
    """

    distilled: DistilledSet
    last: dict[str, Tensor] | None
    soft_labels: Tensor | None
    images_per_class: int
    seed: int


def candidates(entry: Entry, material: Material, evaluation: Evaluation) -> list[Candidate]:
    """The rows of the report before they are scored.

    A control may take the distilled learning rate or the recipe's own, whichever serves it better on
    validation: a control that is trained badly would flatter the distilled set.
    """
    best, train = entry.distilled, material.train
    hard = hard_logits(train.targets, material.splits.num_classes)
    picks = [
        random_per_class(train.targets, entry.images_per_class, generator(entry.seed, "random real", member))
        for member in range(evaluation.num_networks)
    ]
    only = (best.learning_rate,)
    either = tuple(dict.fromkeys((evaluation.optimizer.learning_rate, best.learning_rate)))

    def real(labels: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
        return tuple((train.images[pick], labels[pick]) for pick in picks)

    rows = [
        Candidate("distilled", "soft", ((best.images, best.labels),), only),
        Candidate("distilled_hard_labels", "hard", ((best.images, best.classes),), either),
    ]
    if entry.last is not None:
        last = ((entry.last["images"], entry.last["labels"]),)
        rows.append(Candidate("distilled_last_step", "soft", last, (float(entry.last["learning_rate"]),)))
    rows.append(Candidate("random_real", "hard", real(hard), either))
    if entry.soft_labels is not None:
        rows.append(Candidate("random_real_soft_labels", "soft", real(entry.soft_labels), either))
    everything = ((train.images, train.targets),)
    epochs = evaluation.num_epochs_full_data
    return [*rows, Candidate("full_data", "hard", everything, either, epochs)]


def without_augmentation(rows: list[Candidate]) -> list[Candidate]:
    """The rows that the augmentation-robust score needs once more, trained without augmentation."""
    wanted = ("distilled", "random_real_soft_labels", "random_real")
    return [
        replace(row, name=f"{row.name}_no_augmentation", augmented=False)
        for row in rows
        if row.name in wanted
    ]


def score_rows(
    rows: list[Candidate],
    network: Network,
    evaluation: Evaluation,
    seed: int,
    material: Material,
    cluster: Cluster,
    progress: Progress,
) -> tuple[list[dict[str, Any]], int]:
    """Rows of ``report.json``, and the peak bytes of the tasks that made them.

    Learning rates that a row leaves open are chosen on validation; then the test split is read, by
    all rows together. Nothing afterwards depends on what it said.
    """
    num, kind = evaluation.num_networks, NETWORKS.kind_of(network)

    def contest(judge):
        return scoring.Contest(network, evaluation.recipe(), seed, material.splits.num_classes, judge)

    choosing = contest(material.validation)
    rates, peak = scoring.choose_rates(rows, evaluation.num_validation_networks, choosing, cluster, progress)
    trials = [r.trial(member, rate) for r, rate in zip(rows, rates, strict=True) for member in range(num)]
    outcomes = scoring.score(trials, contest(material.test), cluster, progress, f"{kind} (test)")
    result = []
    for number, (candidate, rate) in enumerate(zip(rows, rates, strict=True)):
        accuracies = [outcome.accuracy for outcome in outcomes[number * num : (number + 1) * num]]
        scored = scoring.row(candidate.name, kind, candidate.label_kind, accuracies)
        result.append({**scored, "learning_rate": rate})
    return result, max([peak, *(outcome.peak_bytes for outcome in outcomes)])
