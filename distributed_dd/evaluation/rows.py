"""The rows of a report about a set: the set and its controls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from distributed_dd.data import Images
from distributed_dd.evaluation.coresets import Coreset
from distributed_dd.evaluation.distilled_set import DistilledSet
from distributed_dd.evaluation.scoring import Candidate
from distributed_dd.evaluation.settings import Evaluation
from distributed_dd.learning.chance import generator
from distributed_dd.learning.classes import hard_logits, random_per_class
from distributed_dd.outer.world import World

SURE = 0.999
"""The least probability of its class with which a label counts as hard."""
TARGETS = "targets"
"""The kind of labels that a regression learned; networks take them as they are, by a squared error."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is evaluated: the set, its last step, which may be absent, and the world that it was made in.

    Attributes:
        coresets: real images to compare it with. start: the set before the first outer step, likewise.
    """

    distilled: DistilledSet
    last: dict[str, Tensor] | None
    world: World
    coresets: Sequence[Coreset] = ()
    start: Mapping[str, Tensor] | None = None


def is_soft(labels: Tensor) -> bool:
    """Whether label logits (n, K) say more than a class."""
    return bool((labels.softmax(1).max(1).values < SURE).any())


def candidates(entry: Entry, soft_labels: Tensor | None = None) -> list[Candidate]:
    """The set, the set with hard labels where its own are soft, random real images, all real images.

    A control may take the distilled learning rate or the recipe's own, whichever serves it better on
    validation: a control that is trained badly would flatter the distilled set.

    Args:
        soft_labels: logits (n, K) of the training images, for random real images with labels of that kind.
    """
    world, best = entry.world, entry.distilled
    train, evaluation = world.real.train, world.evaluate
    hard, asked = hard_logits(train.targets, world.num_classes), evaluation.protocol.labels
    of_control = "teacher" if asked == "teacher" else "hard"
    if asked != "own":
        soft_labels = None
    picks = [
        random_per_class(train.targets, world.stored_per_class, generator(world.seed, "random real", member))
        for member in range(evaluation.num_networks)
    ]
    only, either = (evaluation.rate_of_set(best.learning_rate),), evaluation.rates_of_control(best.learning_rate)

    def real(labels: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
        return tuple((train.images[pick], labels[pick]) for pick in picks)

    own = labelled(best.tensors, evaluation)
    rows = [own.candidate("distilled", best.images, only)]
    if own.kind in ("soft", TARGETS):
        rows.append(
            Candidate(
                name="distilled_hard_labels",
                label_kind="hard",
                sets=((best.images, best.targets),),
                learning_rates=either,
            )
        )
    if entry.last is not None:
        rate = evaluation.rate_of_set(float(entry.last.get("learning_rate", best.learning_rate)))
        last = labelled(entry.last, evaluation)
        rows.append(last.candidate("distilled_last_step", entry.last["images"], (rate,)))
    if entry.start is not None:
        rows.append(_starting_row(entry.start, either, evaluation))
    rows.append(Candidate(name="random_real", label_kind=of_control, sets=real(hard), learning_rates=either))
    if soft_labels is not None:
        rows.append(
            Candidate(name="random_real_soft_labels", label_kind="soft", sets=real(soft_labels), learning_rates=either)
        )
    rows += coreset_rows(entry.coresets, train, {of_control: hard, "soft": soft_labels}, either)
    everything = ((train.images, train.targets),)
    epochs = evaluation.num_epochs_full_data
    return [
        *rows,
        Candidate(name="full_data", label_kind=of_control, sets=everything, learning_rates=either, num_epochs=epochs),
    ]


@dataclass(frozen=True)
class Labelled:
    """The labels of a set that a protocol asks for.

    Attributes:
        labels: logits (n, K), targets of a regression (n, K), or class numbers (n,). kind: as a report calls it.
    """

    labels: Tensor
    kind: str

    @property
    def are_targets(self) -> bool:
        """Whether they are targets of a regression."""
        return self.kind == TARGETS

    def candidate(self, name: str, images: Tensor, rates: tuple[float, ...]) -> Candidate:
        """The row of a set of these images."""
        return Candidate(
            name=name,
            label_kind=self.kind,
            sets=((images, self.labels),),
            learning_rates=rates,
            targets=self.are_targets,
        )


def labelled(tensors: Mapping[str, Tensor], evaluation: Evaluation) -> Labelled:
    """What networks learn of a set: its targets, where it learned some and the loss takes them; else its labels."""
    asked = evaluation.protocol.labels
    if asked != "own":
        return Labelled(tensors["classes"], asked)
    if "targets" in tensors and evaluation.takes_targets:
        return Labelled(tensors["targets"], TARGETS)
    return Labelled(tensors["labels"], "soft" if is_soft(tensors["labels"]) else "hard")


def _starting_row(start: Mapping[str, Tensor], rates: tuple[float, ...], evaluation: Evaluation) -> Candidate:
    """The set before anything was learned: what it owes to its start alone."""
    own = (evaluation.rate_of_set(float(start["learning_rate"])),) if "learning_rate" in start else ()
    return labelled(start, evaluation).candidate("starting_set", start["images"], tuple(dict.fromkeys((*rates, *own))))


def coreset_rows(
    coresets: Sequence[Coreset], train: Images, labels_of: Mapping[str, Tensor | None], rates: tuple[float, ...]
) -> list[Candidate]:
    """Rows of chosen real images: with their classes as labels, and with the set's kind of labels where it is soft.

    Args:
        labels_of: label logits (n, K) of all training images by kind; None: no row with such labels.
    """
    rows = []
    for coreset in coresets:
        images = coreset.mean_of(train.images)
        for kind, labels in labels_of.items():
            if labels is not None:
                name = f"{coreset.rule}_soft_labels" if kind == "soft" else coreset.rule
                sets = ((images, coreset.mean_of(labels)),)
                rows.append(Candidate(name=name, label_kind=kind, sets=sets, learning_rates=rates))
    return rows


def without_augmentation(rows: list[Candidate]) -> list[Candidate]:
    """The rows that the augmentation-robust score needs once more, trained without augmentation."""
    wanted = ("distilled", "random_real_soft_labels", "random_real")
    return [replace(row, name=f"{row.name}_no_augmentation", augmented=False) for row in rows if row.name in wanted]
