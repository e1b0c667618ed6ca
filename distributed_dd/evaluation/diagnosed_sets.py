"""Sets of which a loss is asked: random real images, coresets, and some that ought to be worse."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

import torch
from torch import Tensor

from distributed_dd.data import Images
from distributed_dd.evaluation.coresets import Coreset
from distributed_dd.evaluation.referee import called
from distributed_dd.learning.chance import generator
from distributed_dd.learning.classes import random_per_class
from distributed_dd.learning.set_forms import Codec, seen, stored
from distributed_dd.outer.look import Look

HOW = {
    "herding": "real images whose mean is the class's",
    "kmeans": "real images nearest to centroids",
    "kmeans_centroids": "means of clusters (synthetic)",
    "k_center": "real images far from each other",
}
KEY = "diagnosis"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A set of which the loss is asked: ``tensors`` as a method's starting set has them."""

    name: str
    how: str
    tensors: Mapping[str, Tensor]
    random: bool = False
    coreset: bool = False


def sets_to_ask(
    num_sets: int,
    per_class: int,
    start: Mapping[str, Tensor],
    train: Images,
    labels: Tensor,
    coresets: Sequence[Coreset],
    seed: int,
    targets: Tensor | None = None,
) -> list[Asked]:
    """The starting set, coresets, outliers, noisy images, and random real images until there are ``num_sets``.

    Sets that are equal, as some coresets are at one image per class, are asked once, under all their names. Of a
    data set with too few images for so many different random sets there are fewer.

    Args:
        start: the method's; what it has beside images, labels and classes is part of every set.
        labels: logits (n, K) of the training images, as the method labels them. targets: (n, K), where it has such.
    """

    def of_images(index: Tensor) -> dict[str, Tensor]:
        own = {"images": train.images[index], "labels": labels[index], "classes": train.targets[index]}
        return {**start, **own, **({} if targets is None else {"targets": targets[index]})}

    asked = [Asked(name="starting set", how="as the method starts", tensors=start)]
    asked += _of_coresets(coresets, start, train, labels, targets)
    far = of_images(outliers(train, per_class))
    asked.append(Asked(name="outliers", how="real images farthest from their class's mean", tensors=far))
    rng = generator(seed, KEY, "noisy")
    pick = of_images(random_per_class(train.targets, per_class, rng))
    noise = torch.randn(pick["images"].shape, generator=rng) * train.images.std()
    noisy = {**pick, "images": (pick["images"] + noise) / 2**0.5}
    asked.append(Asked(name="noisy images", how="random real images, half noise", tensors=noisy))
    return _filled(_different(asked)[:num_sets], num_sets, lambda rng: of_images(_random(train, per_class, rng)), seed)


def controls_to_beat(coresets: Sequence[Coreset], look: Look, train: Images, per_class: int) -> list[Asked]:
    """Coresets in pixels, ``per_class`` images of each class: what a report has beside a set that is in a form."""
    different = _different(_of_coresets(coresets, look.start, train, look.labels, look.targets))
    images = f"{per_class} real image{'s' * (per_class > 1)} of a class, in pixels"
    return [replace(one, name=f"{one.name}, {images}") for one in different]


def in_the_form(asked: Sequence[Asked], start: Mapping[str, Tensor], codec: Codec) -> list[Asked]:
    """The sets as they come out of the form in which the distilled one is stored: all take its bytes.

    Args:
        start: has come out of it already; some forms would change it once more.
    """
    return [
        one if one.tensors is start else replace(one, tensors=seen(stored(one.tensors, codec), codec)) for one in asked
    ]


def _of_coresets(
    coresets: Sequence[Coreset], start: Mapping[str, Tensor], train: Images, labels: Tensor, targets: Tensor | None
) -> list[Asked]:
    asked = []
    for coreset in coresets:
        means = {"images": coreset.mean_of(train.images), "labels": coreset.mean_of(labels)}
        means |= {} if targets is None else {"targets": coreset.mean_of(targets)}
        tensors = {**start, **means, "classes": train.targets[_first_members(coreset)]}
        asked.append(Asked(name=called(coreset.rule), how=HOW[coreset.rule], tensors=tensors, coreset=True))
    return asked


def _filled(
    asked: list[Asked], num_sets: int, draw: Callable[[torch.Generator], Mapping[str, Tensor]], seed: int
) -> list[Asked]:
    """More random sets; where new draws bring nothing new any more, no further ones."""
    for number in count(1):
        if len(asked) >= num_sets or number > 2 * num_sets:
            return asked
        tensors = draw(generator(seed, KEY, "random", number))
        one = Asked(name=f"random {number}", how="random real images", tensors=tensors, random=True)
        if not any(_are_equal(one, other) for other in asked):
            asked = [*asked, one]
    return asked


def _random(train: Images, per_class: int, rng: torch.Generator) -> Tensor:
    return random_per_class(train.targets, per_class, rng)


def _first_members(coreset: Coreset) -> Tensor:
    """For each image of a coreset one of its members: all of them are of its class."""
    num_images = int(coreset.image_of.max()) + 1
    first = torch.zeros(num_images, dtype=torch.long)
    first[coreset.image_of.flip(0)] = coreset.members.flip(0)
    return first


def outliers(train: Images, per_class: int) -> Tensor:
    """Indices of the ``per_class`` images of each class that lie farthest from its mean."""
    chosen = []
    for number in range(int(train.targets.max()) + 1):
        own = train.of_class(number)
        images = train.images[own].flatten(1)
        distances = (images - images.mean(0)).square().sum(1)
        chosen.append(own[distances.argsort(descending=True, stable=True)[:per_class].sort().values])
    return torch.cat(chosen)


def _different(asked: Sequence[Asked]) -> list[Asked]:
    """Each set once; those that are equal under the names of all."""
    kept: list[Asked] = []
    for one in asked:
        place = next((number for number, other in enumerate(kept) if _are_equal(one, other)), None)
        if place is None:
            kept.append(one)
        else:
            other = kept[place]
            name, coreset = f"{other.name} = {one.name}", other.coreset or one.coreset
            kept[place] = Asked(name=name, how=other.how, tensors=other.tensors, coreset=coreset)
    return kept


def _are_equal(one: Asked, other: Asked) -> bool:
    """Whether two sets hold the same images, in whatever order within a class."""
    return torch.equal(one.tensors["classes"], other.tensors["classes"]) and _order_free(one) == _order_free(other)


def _order_free(asked: Asked) -> list[tuple[int, bytes]]:
    images, classes = asked.tensors["images"], asked.tensors["classes"]
    rows = zip(classes.tolist(), images, strict=True)
    return sorted((number, image.contiguous().numpy().tobytes()) for number, image in rows)
