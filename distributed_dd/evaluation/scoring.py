"""Score sets by training fresh networks on them, beside honest controls."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from statistics import mean, stdev
from typing import Any, Protocol

import torch
from torch import Tensor

from distributed_dd.data import Images
from distributed_dd.errors import DivergedError
from distributed_dd.evaluation.scored import Scored
from distributed_dd.family import choice, plain, require, setting
from distributed_dd.learning.augment import Identity
from distributed_dd.learning.chance import generator
from distributed_dd.learning.device import device
from distributed_dd.learning.loop import Recipe, Training, predict, share_right
from distributed_dd.learning.networks import NETWORKS, Network, initialised
from distributed_dd.learning.optimizers import OPTIMIZERS, SGD, Optimizer
from distributed_dd.learning.tensor_files import is_finite
from distributed_dd.outer.footprint import footprint
from distributed_dd.outer.ports import Cluster, Progress

DIVERGED = -1.0
CONFUSED, MOST_CONFUSED = "distilled", 100
"""The row whose networks tell what they take for what, and the most classes of which they do."""
RULES = ("herding", "kmeans", "kmeans_centroids", "k_center")
"""By which real images may be chosen; `coresets` has them."""


@dataclass(frozen=True, kw_only=True)
class Evaluation(Recipe):
    """How a set is scored: fresh networks, trained by one frozen recipe."""

    num_epochs: int = setting("passes over the set", 1001, at_least=1, at_most=1_000_000)
    batch_size: int = setting("images per step", 128, at_least=1)
    drop: float = setting("learning rate factor after epoch num_epochs // 2 + 1", 0.1, at_most=1)
    optimizer: Optimizer = choice(
        OPTIMIZERS, "update rule; its rate is used where none was distilled", SGD(0.01, 0.9, 5e-4)
    )
    num_networks: int = setting("fresh networks per row of the report", 5, at_least=1, at_most=10_000)
    num_validation_networks: int = setting(
        "fresh networks for every choice on validation", 2, at_least=1, at_most=10_000
    )
    every: int = setting("outer steps between scores on validation", 500, at_least=1)
    controls: tuple[str, ...] = setting(
        f"real images that the report scores beside random ones: any of {', '.join(RULES)}",
        ("herding", "kmeans", "kmeans_centroids"),
        identity=False,
    )
    num_epochs_full_data: int = setting(
        "passes over all real images, for the full-data row", 100, at_least=1, at_most=1_000_000
    )

    def __post_init__(self) -> None:
        for rule in self.controls:
            require(rule in RULES, "controls", f"unknown {rule!r}", ", ".join(RULES))

    def recipe(self) -> Recipe:
        """The training part alone."""
        return self.bare()


@dataclass(frozen=True, kw_only=True)
class Contest:
    """What all fits of one scoring share: the network, the recipe, the images that judge."""

    network: Network
    recipe: Recipe
    seed: int
    num_classes: int
    judge: Images


class ImageStream(Protocol):
    """Images that are new in every epoch."""

    def keyed(self, *key: str | int) -> "ImageStream":
        """The same with other draws."""
        ...

    def to(self, device: torch.device) -> "ImageStream":
        """The same, computing on a device."""
        ...

    def epoch(self, number: int) -> Tensor:
        """Images (n, C, H, W) of an epoch, as networks see them."""
        ...


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One fresh network to train on one set, or on a source of images that are new in every epoch."""

    images: Tensor | ImageStream
    labels: Tensor
    learning_rate: float | None
    member: int
    num_epochs: int | None = None
    augmented: bool = True
    row: str = ""


@dataclass(frozen=True)
class Outcome:
    """Accuracy on the judge's images in [0, 1], and the most memory the fit's process held.

    ``accuracy`` is `DIVERGED` where the network's outputs are not finite: that is no accuracy, not even by chance.
    ``confusion`` counts images (K, K) by their class and by what the network took them for; empty where nobody asked.
    """

    accuracy: float
    peak_bytes: int
    confusion: Sequence[Sequence[int]] = ()

    @property
    def diverged(self) -> bool:
        """Whether the training diverged."""
        return self.accuracy == DIVERGED


def run_fit(fit: Fit, contest: Contest) -> Outcome:
    """Train network number ``fit.member`` on the set and score it."""
    with footprint() as cost:
        logits_nK = _judged(fit, contest).cpu()
    if not is_finite(logits_nK):
        return Outcome(DIVERGED, cost.peak_bytes)
    targets_n = contest.judge.targets.cpu()
    asked = fit.row == CONFUSED and contest.num_classes <= MOST_CONFUSED
    confusion = _confusion(logits_nK, targets_n, contest.num_classes) if asked else ()
    return Outcome(share_right(logits_nK, targets_n), cost.peak_bytes, confusion)


def _confusion(logits_nK: Tensor, targets_n: Tensor, num_classes: int) -> list[list[int]]:
    """How many images (K, K) of a class were taken for which."""
    pairs = targets_n * num_classes + logits_nK.argmax(1)
    return torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes).tolist()


def _judged(fit: Fit, contest: Contest) -> Tensor:
    """Logits (n, K) of the judge's images by a network that was trained on the set."""
    where = device()
    rng = generator(contest.seed, "evaluation", fit.member, "start")
    images, renewed = fit.images.to(where), None
    if not isinstance(images, Tensor):
        renewed = images.keyed(fit.member).epoch
        images = renewed(0)
    shape = (images.shape[1], images.shape[2], images.shape[3])
    network = initialised(contest.network, shape, contest.num_classes, rng).to(where)
    recipe = contest.recipe
    if fit.num_epochs is not None:
        recipe = replace(recipe, num_epochs=fit.num_epochs)
    if not fit.augmented:
        recipe = replace(recipe, augment=Identity())
    key = (contest.seed, "evaluation", fit.member)
    labels = fit.labels.to(where)
    Training(network, images, labels, recipe, key, fit.learning_rate, renewed=renewed).run_to_end()
    return predict(network, contest.judge.images.to(where))


def score(
    fits: Sequence[Fit],
    contest: Contest,
    cluster: Cluster,
    progress: Progress | None = None,
    what: str = "",
    scored: Scored | None = None,
) -> list[Outcome]:
    """Outcomes of all fits, in their order; those that ``scored`` knows are not made again, the others are kept."""
    keys = [_key(fit, contest, what) for fit in fits]
    known = {index: scored.get(key) for index, key in enumerate(keys)} if scored else {}
    results = {index: Outcome(*outcome) for index, outcome in known.items() if outcome}
    missing = [index for index in range(len(fits)) if index not in results]
    with progress.bar(what, len(fits), len(results)) if progress else nullcontext() as bar:
        for number, outcome in cluster.map(run_fit, [fits[index] for index in missing], contest):
            index = missing[number]
            results[index] = outcome
            if scored:
                scored.keep(keys[index], (outcome.accuracy, outcome.peak_bytes, outcome.confusion))
            if bar:
                bar.advance()
    return [results[index] for index in range(len(fits))]


def _key(fit: Fit, contest: Contest, what: str) -> dict[str, Any]:
    """What tells a fit from the others of the same result."""
    return {
        "what": what,
        "row": fit.row,
        "member": fit.member,
        "learning_rate": fit.learning_rate,
        "num_epochs": fit.num_epochs,
        "augmented": fit.augmented,
        "network": [NETWORKS.kind_of(contest.network), plain(contest.network)],
        "recipe": plain(contest.recipe),
        "seed": contest.seed,
    }


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A row of the report before it is scored.

    ``sets`` holds one (images, labels) per network, or a single one for all; images may be a source of new
    ones. Learning rates beyond the first are alternatives; validation decides.
    """

    name: str
    label_kind: str
    sets: tuple[tuple[Tensor | ImageStream, Tensor], ...]
    learning_rates: tuple[float, ...]
    num_epochs: int | None = None
    augmented: bool = True

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
        scored: the networks that are scored already, where a kill may come between.

    Raises:
        DivergedError: all networks of a row ended with numbers that are not finite.
    """
    num, kind = evaluation.num_networks, NETWORKS.kind_of(network)

    def contest(judge: Images) -> Contest:
        return Contest(
            network=network, recipe=evaluation.recipe(), seed=seed, num_classes=material.splits.num_classes, judge=judge
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
