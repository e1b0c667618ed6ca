"""The final scores: the distilled set beside its controls, on the test split, once."""

from pathlib import Path
from typing import Any

from distributed_dd.distillation.chance import generator
from distributed_dd.distillation.labels import hard_logits
from distributed_dd.distillation.networks import NETWORKS
from distributed_dd.distillation.starts import random_per_class
from distributed_dd.stages import artefact, scoring
from distributed_dd.stages.experiment import Experiment
from distributed_dd.stages.material import Material
from distributed_dd.stages.ports import Cluster, Progress
from distributed_dd.stages.scoring import Candidate
from distributed_dd.stages.selection import Jury


def evaluate(
    experiment: Experiment,
    material: Material,
    jury: Jury,
    distilled: Path,
    cluster: Cluster,
    progress: Progress,
) -> tuple[list[dict[str, Any]], int]:
    """Rows of ``report.json``, and the peak bytes of the tasks that made them.

    Learning rates that a row leaves open are chosen on validation; then the test split is read, by
    all rows together. Nothing afterwards depends on what it said.
    """
    e, recipe = experiment, experiment.evaluate.recipe()
    rows = candidates(e, material, jury, distilled)

    def contest(judge):
        return scoring.Contest(e.network, recipe, e.seed, material.splits.num_classes, judge)

    choosing = contest(material.validation)
    rates, peak = scoring.choose_rates(rows, e.evaluate.num_validation_networks, choosing, cluster, progress)
    num = e.evaluate.num_networks
    trials = [r.trial(member, rate) for r, rate in zip(rows, rates, strict=True) for member in range(num)]
    test = material.test
    outcomes = scoring.score(trials, contest(test), cluster, progress, "evaluate (test)")
    kind, result = NETWORKS.kind_of(e.network), []
    for number, (candidate, rate) in enumerate(zip(rows, rates, strict=True)):
        accuracies = [outcome.accuracy for outcome in outcomes[number * num : (number + 1) * num]]
        scored = scoring.row(candidate.name, kind, candidate.label_kind, accuracies)
        result.append({**scored, "learning_rate": rate})
    result.append(scoring.row("expert", kind, "hard", jury.accuracies(test)))
    return result, max([peak, *(outcome.peak_bytes for outcome in outcomes)])


def candidates(experiment: Experiment, material: Material, jury: Jury, distilled: Path) -> list[Candidate]:
    """The rows of the report before they are scored.

    A control may take the distilled learning rate or the recipe's own, whichever serves it better on
    validation: a control that is trained badly would flatter the distilled set.
    """
    e, train = experiment, material.train
    best, last = artefact.load_distilled(distilled), artefact.load_last_step(distilled)
    soft = jury.soft_labels(e.method.labels)
    hard = hard_logits(train.targets, material.splits.num_classes)
    picks = [
        random_per_class(train.targets, e.images_per_class, generator(e.seed, "random real", member))
        for member in range(e.evaluate.num_networks)
    ]
    either = tuple(dict.fromkeys((e.evaluate.optimizer.learning_rate, best.learning_rate)))
    only, only_last = (best.learning_rate,), (float(last["learning_rate"]),)
    real_hard = tuple((train.images[pick], hard[pick]) for pick in picks)
    real_soft = tuple((train.images[pick], soft[pick]) for pick in picks)
    everything = ((train.images, train.targets),)
    return [
        Candidate("distilled", "soft", ((best.images, best.labels),), only),
        Candidate("distilled_hard_labels", "hard", ((best.images, best.classes),), either),
        Candidate("distilled_last_step", "soft", ((last["images"], last["labels"]),), only_last),
        Candidate("random_real", "hard", real_hard, either),
        Candidate("random_real_soft_labels", "soft", real_soft, either),
        Candidate("full_data", "hard", everything, either, e.evaluate.num_epochs_full_data),
    ]
