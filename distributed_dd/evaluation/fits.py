"""Fresh networks, trained on sets and judged on images that nobody trained on."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from distributed_dd.data import Images
from distributed_dd.evaluation.scored import Scored
from distributed_dd.family import plain
from distributed_dd.learning.augment import Identity
from distributed_dd.learning.chance import generator
from distributed_dd.learning.device import device
from distributed_dd.learning.flat import unflatten
from distributed_dd.learning.loop import Recipe, Training, predict, share_right
from distributed_dd.learning.networks import NETWORKS, Network, initialised
from distributed_dd.learning.tensor_files import is_finite
from distributed_dd.outer.footprint import footprint
from distributed_dd.outer.ports import Cluster, Progress

DIVERGED = -1.0
CONFUSED, MOST_CONFUSED = "distilled", 100
"""The row whose networks tell what they take for what, and the most classes of which they do."""


@dataclass(frozen=True, kw_only=True)
class Contest:
    """What all fits of one scoring share: the network, the recipe, the images that judge.

    Attributes:
        teacher: parameters (P,) of a network of the same kind that labels every batch; None: labels are the sets' own.
    """

    network: Network
    recipe: Recipe
    seed: int
    num_classes: int
    judge: Images
    teacher: Tensor | None = None


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
    """One fresh network to train on one set, or on a source of images that are new in every epoch.

    Attributes:
        targets: whether soft labels are targets of a regression as they are, and no logits.
    """

    images: Tensor | ImageStream
    labels: Tensor
    learning_rate: float | None
    member: int
    num_epochs: int | None = None
    augmented: bool = True
    targets: bool = False
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
    recipe = contest.recipe.fitted_to(len(fit.labels))
    if fit.num_epochs is not None:
        recipe = recipe.of_real_images(fit.num_epochs)
    if not fit.augmented:
        recipe = replace(recipe, augment=Identity())
    if fit.targets:
        recipe = recipe.of_targets()
    key = (contest.seed, "evaluation", fit.member)
    labels = fit.labels.to(where)
    teacher = _teacher(contest, shape, where)
    Training(network, images, labels, recipe, key, fit.learning_rate, renewed=renewed, teacher=teacher).run_to_end()
    return predict(network, contest.judge.images.to(where))


def _teacher(contest: Contest, shape: tuple[int, int, int], where: torch.device) -> Callable[[Tensor], Tensor] | None:
    """From a batch to label logits (B, K), by the contest's teacher."""
    if contest.teacher is None:
        return None
    layers = initialised(contest.network, shape, contest.num_classes, generator(0, "layout")).to(where)
    unflatten(contest.teacher, layers)
    return partial(predict, layers)


def score(
    fits: Sequence[Fit],
    contest: Contest,
    cluster: Cluster,
    progress: Progress | None = None,
    what: str = "",
    scored: Scored | None = None,
) -> list[Outcome]:
    """Outcomes of all fits, in their order; those that ``scored`` knows are not made again, the others are kept.

    Fits that would train the same network on the same set are made once, such as the best step's and the last one's.
    """
    keys = [_key(fit, contest, what) for fit in fits]
    known = {index: scored.get(key) for index, key in enumerate(keys)} if scored else {}
    results = {index: Outcome(*outcome) for index, outcome in known.items() if outcome}
    missing = _alike(fits, [index for index in range(len(fits)) if index not in results])
    with progress.bar(what, len(fits), len(results)) if progress else nullcontext() as bar:
        for number, outcome in cluster.map(run_fit, [fits[alike[0]] for alike in missing], contest):
            for index in missing[number]:
                asked = outcome if fits[index].row == CONFUSED else replace(outcome, confusion=())
                results[index] = asked
                if scored:
                    scored.keep(keys[index], (asked.accuracy, asked.peak_bytes, asked.confusion))
                if bar:
                    bar.advance()
    return [results[index] for index in range(len(fits))]


def _alike(fits: Sequence[Fit], indices: Sequence[int]) -> list[list[int]]:
    """The indices, those of the same network on the same set together, the row that tells most first."""
    contents: dict[int, str] = {}

    def content(held: Tensor | ImageStream) -> str:
        if not isinstance(held, Tensor):
            return f"stream {id(held)}"
        if id(held) not in contents:  # a full data set stands in many fits
            values = held.detach().cpu().contiguous()
            hashed = hashlib.sha256(values.view(torch.uint8).numpy() if values.numel() else b"")
            contents[id(held)] = f"{values.dtype} {tuple(values.shape)} {hashed.hexdigest()}"
        return contents[id(held)]

    groups: dict[tuple, list[int]] = {}
    for index in sorted(indices, key=lambda index: (fits[index].row != CONFUSED, index)):
        fit = fits[index]
        same = (fit.learning_rate, fit.member, fit.num_epochs, fit.augmented, fit.targets)
        groups.setdefault((content(fit.images), content(fit.labels), *same), []).append(index)
    return sorted(groups.values())


def _key(fit: Fit, contest: Contest, what: str) -> dict[str, Any]:
    """What tells a fit from the others of the same result."""
    return {
        "what": what,
        "row": fit.row,
        "member": fit.member,
        "learning_rate": fit.learning_rate,
        "num_epochs": fit.num_epochs,
        "augmented": fit.augmented,
        **({"targets": True} if fit.targets else {}),
        "network": [NETWORKS.kind_of(contest.network), plain(contest.network)],
        "recipe": plain(contest.recipe),
        "seed": contest.seed,
    }
