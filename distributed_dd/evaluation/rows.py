"""The rows of a report about a set: the set and its controls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from distributed_dd.data import Images
from distributed_dd.evaluation.artefact import DistilledSet
from distributed_dd.evaluation.coresets import Coreset
from distributed_dd.evaluation.scoring import Candidate
from distributed_dd.learning.chance import generator
from distributed_dd.learning.classes import hard_logits, random_per_class
from distributed_dd.outer.world import World

SURE = 0.999
"""The least probability of its class with which a label counts as hard."""


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
    hard = hard_logits(train.targets, world.num_classes)
    picks = [
        random_per_class(train.targets, world.images_per_class, generator(world.seed, "random real", member))
        for member in range(evaluation.num_networks)
    ]
    only = (best.learning_rate,)
    either = tuple(dict.fromkeys((evaluation.optimizer.learning_rate, best.learning_rate)))

    def real(labels: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
        return tuple((train.images[pick], labels[pick]) for pick in picks)

    kind = "soft" if is_soft(best.labels) else "hard"
    rows = [Candidate(name="distilled", label_kind=kind, sets=((best.images, best.labels),), learning_rates=only)]
    if kind == "soft":
        rows.append(
            Candidate(
                name="distilled_hard_labels",
                label_kind="hard",
                sets=((best.images, best.classes),),
                learning_rates=either,
            )
        )
    if entry.last is not None:
        last = ((entry.last["images"], entry.last["labels"]),)
        rate = float(entry.last.get("learning_rate", best.learning_rate))
        rows.append(Candidate(name="distilled_last_step", label_kind=kind, sets=last, learning_rates=(rate,)))
    if entry.start is not None:
        rows.append(_starting_row(entry.start, either))
    rows.append(Candidate(name="random_real", label_kind="hard", sets=real(hard), learning_rates=either))
    if soft_labels is not None:
        rows.append(
            Candidate(name="random_real_soft_labels", label_kind="soft", sets=real(soft_labels), learning_rates=either)
        )
    rows += coreset_rows(entry.coresets, train, hard, soft_labels, either)
    everything = ((train.images, train.targets),)
    epochs = evaluation.num_epochs_full_data
    return [
        *rows,
        Candidate(name="full_data", label_kind="hard", sets=everything, learning_rates=either, num_epochs=epochs),
    ]


def _starting_row(start: Mapping[str, Tensor], rates: tuple[float, ...]) -> Candidate:
    """The set before anything was learned: what it owes to its start alone."""
    kind = "soft" if is_soft(start["labels"]) else "hard"
    own = (float(start["learning_rate"]),) if "learning_rate" in start else ()
    return Candidate(
        name="starting_set",
        label_kind=kind,
        sets=((start["images"], start["labels"]),),
        learning_rates=tuple(dict.fromkeys((*rates, *own))),
    )


def coreset_rows(
    coresets: Sequence[Coreset], train: Images, hard: Tensor, soft: Tensor | None, rates: tuple[float, ...]
) -> list[Candidate]:
    """Rows of chosen real images: with their classes as labels, and with the set's kind of labels where it is soft.

    Args:
        hard, soft: label logits (n, K) of all training images.
    """
    rows = []
    for coreset in coresets:
        images = coreset.mean_of(train.images)
        for kind, labels in (("hard", hard), ("soft", soft)):
            if labels is not None:
                name = coreset.rule if kind == "hard" else f"{coreset.rule}_soft_labels"
                sets = ((images, coreset.mean_of(labels)),)
                rows.append(Candidate(name=name, label_kind=kind, sets=sets, learning_rates=rates))
    return rows


def without_augmentation(rows: list[Candidate]) -> list[Candidate]:
    """The rows that the augmentation-robust score needs once more, trained without augmentation."""
    wanted = ("distilled", "random_real_soft_labels", "random_real")
    return [replace(row, name=f"{row.name}_no_augmentation", augmented=False) for row in rows if row.name in wanted]
