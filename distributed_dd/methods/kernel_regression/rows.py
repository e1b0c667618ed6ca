"""Rows of a report that are no networks: the kernel regression on the set, and on real images with solved labels.

A kernel regression row and a network row are different things: what a set reaches with the one says little of the
other, most of all where targets were learned.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from distributed_dd.data import Images
from distributed_dd.evaluation.rows import TARGETS, Entry, candidates
from distributed_dd.evaluation.scoring import Candidate, row
from distributed_dd.learning.classes import centred_targets
from distributed_dd.learning.device import device
from distributed_dd.learning.kernels.ridge import predict, ridge_weights, solved_labels
from distributed_dd.learning.loop import share_right
from distributed_dd.methods.kernel_regression.limits import CHOICES
from distributed_dd.methods.kernel_regression.pairs import Pairs

SET, LAST, RANDOM, SOLVED = (
    "kernel_regression",
    "kernel_regression_last_step",
    "kernel_regression_random_real",
    "kernel_regression_solved_labels",
)
TITLES = {
    SET: "kernel regression on the distilled set",
    LAST: "kernel regression, last outer step",
    RANDOM: "kernel regression on random real images",
    SOLVED: "kernel regression on random real images, labels solved",
    "random_real_solved_labels": "random real images, labels solved by the kernel",
}
HARD, SOLVED_LABELS = "hard", "solved"


@dataclass(frozen=True)
class Regression:
    """A kernel regression: the kernel, the ridge as a share of its mean, the number of classes."""

    pairs: Pairs
    ridge: float
    num_classes: int

    def accuracy(self, images: Tensor, targets_nK: Tensor, judge: Images) -> float:
        """Share of the judge's images that a regression on these predicts right, in [0, 1]."""
        images = images.to(device())
        weights_nK = ridge_weights(self.pairs.matrix(images), targets_nK.to(device()), self.ridge)
        outputs = predict(self.pairs.matrix(judge.images.to(device()), images), weights_nK)
        return share_right(outputs.cpu(), judge.targets.cpu())

    def targets_of(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, str]:
        """Targets (n, K) of a set and what a report calls them: those it learned, or those of its classes."""
        if "targets" in tensors:
            return tensors["targets"], TARGETS
        return centred_targets(tensors["classes"], self.num_classes), HARD

    def solved(self, images: Tensor, train: Images) -> Tensor:
        """The targets (n, K) of these images whose regression predicts all training images best."""
        images = images.to(device())
        with_train = self.pairs.matrix(train.images.to(device()), images)
        wanted = centred_targets(train.targets, self.num_classes).to(device())
        return solved_labels(with_train, self.pairs.matrix(images), wanted, self.ridge).float().cpu()


def _pictures(row_of_real: Candidate) -> list[tuple[Tensor, Tensor]]:
    """Images and label logits of a row's sets, which are tensors in a row of real images."""
    return [(images, labels) for images, labels in row_of_real.sets if isinstance(images, Tensor)]


def rows_of_networks(entry: Entry, regression: Regression) -> list[Candidate]:
    """The usual rows; where networks learn targets, also random real images with solved labels."""
    rows = candidates(entry)
    if not entry.world.evaluate.takes_targets:
        return rows
    place = next(number for number, one in enumerate(rows) if one.name == "random_real")
    train = entry.world.real.train
    sets = tuple((images, regression.solved(images, train)) for images, _ in _pictures(rows[place]))
    solved = replace(rows[place], name="random_real_solved_labels", label_kind=SOLVED_LABELS, sets=sets, targets=True)
    return [*rows[: place + 1], solved, *rows[place + 1 :]]


def rows_of_regression(entry: Entry, regression: Regression) -> list[dict[str, Any]]:
    """The regression on the set, on its last step, and on the random real images of the report."""
    world = entry.world
    train, test, kind = world.real.train, world.real.test, f"{CHOICES.kind_of(regression.pairs.kernel)} kernel"
    rows = []
    for name, tensors in ((SET, entry.distilled.tensors), (LAST, entry.last)):
        if tensors is not None:
            targets, called = regression.targets_of(tensors)
            rows.append(row(name, kind, called, [regression.accuracy(tensors["images"], targets, test)]))
    random = next(one for one in candidates(entry) if one.name == "random_real")
    picks = [(images, regression.targets_of({"classes": labels.argmax(1)})[0]) for images, labels in _pictures(random)]
    rows.append(row(RANDOM, kind, HARD, [regression.accuracy(images, targets, test) for images, targets in picks]))
    accuracies = [regression.accuracy(images, regression.solved(images, train), test) for images, _ in picks]
    rows.append(row(SOLVED, kind, SOLVED_LABELS, accuracies))
    return rows
