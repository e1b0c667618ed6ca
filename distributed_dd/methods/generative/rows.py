"""The rows of a report about a generator: both protocols, always named, beside controls."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distributed_dd.evaluation.coresets import Coreset
from distributed_dd.evaluation.rows import coreset_rows
from distributed_dd.evaluation.scoring import Candidate
from distributed_dd.evaluation.settings import Evaluation
from distributed_dd.learning.chance import generator
from distributed_dd.learning.classes import hard_logits, random_per_class
from distributed_dd.methods.generative.source import Source

FRESH, FRESH_LAST, FROZEN = "generated_fresh", "generated_fresh_last_step", "distilled"
TITLES = {
    FRESH: "generated, fresh noise in every epoch",
    FRESH_LAST: "fresh noise, last outer step",
    FROZEN: "generated, one frozen sample",
}
PROTOCOLS = {FRESH: "fresh", FRESH_LAST: "fresh", FROZEN: "frozen"}


@dataclass(frozen=True, kw_only=True)
class Generated:
    """What is evaluated: the generator, its last step if that is another, and a frozen sample of it."""

    source: Source
    last: Source | None
    frozen: dict[str, Tensor]
    images_per_class: int
    seed: int
    coresets: Sequence[Coreset] = ()


def candidates(entry: Generated, material: Any, evaluation: Evaluation) -> list[Candidate]:
    """The rows of the report before they are scored.

    ``generated_fresh`` sees classes x images per class images that are new in every epoch, as the papers
    evaluate; ``distilled`` is one frozen sample of as many, as every other method is evaluated.
    """
    train, rates = material.train, (evaluation.own_rate,)
    kind = "teacher" if evaluation.protocol.labels == "teacher" else "hard"
    hard = hard_logits(train.targets, material.splits.num_classes)
    # A generator may give more images than there are real ones to compare with.
    enough = entry.images_per_class <= int(torch.bincount(train.targets).min())
    picks = [
        random_per_class(train.targets, entry.images_per_class, generator(entry.seed, "random real", member))
        for member in range(evaluation.num_networks if enough else 0)
    ]
    classes = entry.source.classes
    rows = [Candidate(name=FRESH, label_kind=kind, sets=((entry.source, classes),), learning_rates=rates)]
    if entry.last is not None:
        rows.append(Candidate(name=FRESH_LAST, label_kind=kind, sets=((entry.last, classes),), learning_rates=rates))
    rows.append(
        Candidate(name=FROZEN, label_kind=kind, sets=((entry.frozen["images"], classes),), learning_rates=rates)
    )
    if picks:
        real = tuple((train.images[pick], hard[pick]) for pick in picks)
        rows.append(Candidate(name="random_real", label_kind=kind, sets=real, learning_rates=rates))
    rows += coreset_rows(entry.coresets, train, {kind: hard}, rates)
    everything = ((train.images, train.targets),)
    return [
        *rows,
        Candidate(
            name="full_data",
            label_kind=kind,
            sets=everything,
            learning_rates=rates,
            num_epochs=evaluation.num_epochs_full_data,
        ),
    ]


def with_protocol(row: dict[str, Any], num_images: int, num_epochs: int) -> dict[str, Any]:
    """The scored row with its protocol and the number of distinct generated images that its networks saw."""
    protocol = PROTOCOLS.get(row["name"])
    if protocol is None:
        return row
    seen = num_images * (num_epochs if protocol == "fresh" else 1)
    return {**row, "protocol": protocol, "num_images_seen": seen}
