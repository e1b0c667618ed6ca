"""A set of others fitted to the data that it is judged on: the one place where its order and numbers become ours."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import exp

import torch
from torch import Tensor

from distributed_dd.data import Fitted, Splits
from distributed_dd.data.reading import shown
from distributed_dd.errors import ConfigError, IntegrityError
from distributed_dd.evaluation.exporting import folders_of
from distributed_dd.evaluation.published_sets.foreign_set import ForeignSet, SetReading
from distributed_dd.evaluation.published_sets.picture_folders import resized
from distributed_dd.learning.classes import HARD_LOGIT, hard_logits

SUMS_TO_ONE, BEYOND = 1e-3, 1e-6
BOTH_CHOICES = "set.values=pixels (0 to 1, to be preprocessed) or set.values=seen (numbers as networks see them)"
Say = Callable[[str], None]


@dataclass(frozen=True)
class FittedSet:
    """The set as an artefact holds it, sorted by class, and its pixels for people."""

    tensors: dict[str, Tensor]
    pixels: Tensor


def fit_to(foreign: ForeignSet, reading: SetReading, splits: Splits, fitted: Fitted, say: Say) -> FittedSet:
    """The set in the data's order of classes, size and preprocessing; ``say`` tells what was taken for what.

    Raises:
        ConfigError: files do not say what a person must: pixels or not, which class is which, whether to resize.
        IntegrityError: classes, channels or numbers that cannot be the data's.
    """
    for note in foreign.notes:
        say(note)
    order = _order(foreign, reading, splits, say)
    classes, labels = _labels(foreign, order, splits, say)
    images = _images(foreign, reading, splits, fitted, say)
    if not len(images) == len(classes) == len(labels):
        problem = f"holds {len(images)} images and {len(labels)} labels"
        raise IntegrityError(foreign.where, problem, allowed="a label for each image")
    by_class = classes.argsort(stable=True)
    tensors = {"images": images, "labels": labels, "classes": classes}
    tensors = {name: tensor[by_class].contiguous() for name, tensor in tensors.items()}
    if foreign.learning_rate is not None:
        tensors["learning_rate"] = torch.tensor(foreign.learning_rate, dtype=torch.float32)
    return FittedSet(tensors, fitted.invert(tensors["images"]))


def _order(foreign: ForeignSet, reading: SetReading, splits: Splits, say: Say) -> Tensor:
    """The data's class (K) of each class of the set.

    Raises:
        ConfigError: the set's names are neither the data's nor numbers, and nobody said which is which.
        IntegrityError: the set has another number of classes.
    """
    data, num_classes = list(splits.class_names), splits.num_classes
    named = list(foreign.class_names) or [str(number) for number in range(num_classes)]
    theirs = f"the set has {shown(named, 20)}"
    ours = f"{splits.name} has {shown(data, 20)}"
    if len(set(named)) < len(named):
        raise IntegrityError(foreign.where, f"two classes have one name: {theirs}")
    if reading.class_names:
        asked = list(reading.class_names)
        if sorted(asked) != sorted(named) or len(asked) != num_classes:
            problem = f"names {shown(asked, 20)}; {theirs}"
            raise ConfigError("set.class_names", problem, allowed=f"each of them once, in the order in which {ours}")
        say(f"classes are in the order of set.class_names: {shown(asked, 20)}")
        return torch.tensor([asked.index(name) for name in named])
    if not foreign.class_names:
        say(f"the set has numbers for its classes: taken as places in the order of {shown(data, 20)}")
        return torch.arange(num_classes)
    for known in (data, folders_of(data)):
        if set(named) == set(known):
            return torch.tensor([known.index(name) for name in named])
    if all(name.isascii() and name.isdigit() for name in named):
        numbers = [int(name) for name in named]
        if sorted(numbers) == list(range(num_classes)):
            say(f"names {shown(named, 20)} are taken as class numbers, in the order of {shown(data, 20)}")
            return torch.tensor(numbers)
    if len(named) != num_classes:
        problem = f"{len(named)} classes, where {splits.name} has {num_classes}: {theirs}"
        raise IntegrityError(foreign.where, problem, allowed=ours)
    fix = f"set.class_names=[..]: the set's names, in the order in which {splits.name} has its classes"
    raise ConfigError(foreign.where, f"which class is which? {theirs}", allowed=ours, fix=fix)


def _labels(foreign: ForeignSet, order: Tensor, splits: Splits, say: Say) -> tuple[Tensor, Tensor]:
    """Classes (n,) and logits (n, K), both in the data's order."""
    num_classes, classes, labels = splits.num_classes, foreign.classes, foreign.labels
    if classes is not None and (int(classes.min()) < 0 or int(classes.max()) >= len(order)):
        problem = f"has labels {int(classes.min())} .. {int(classes.max())}"
        raise IntegrityError(foreign.labels_at, problem, allowed=f"0 .. {len(order) - 1}")
    if labels is None:
        assert classes is not None
        return order[classes], hard_logits(order[classes], num_classes)
    if labels.ndim != 2 or labels.shape[1] != len(order):
        problem = f"labels are {tuple(labels.shape)}"
        raise IntegrityError(foreign.labels_at, problem, allowed=f"(n, {num_classes}) or (n,)")
    if (foreign.label_kind or _kind_of(labels)) == "probabilities":
        if foreign.label_kind is None:
            say("labels are 0 or more and sum to 1 for every image: they are probabilities, kept as their logarithms")
        labels = labels.double().clamp_min(exp(-HARD_LOGIT)).log().float()
    logits = torch.empty_like(labels)
    logits[:, order] = labels
    return (logits.argmax(1) if classes is None else order[classes]), logits


def _kind_of(labels: Tensor) -> str:
    sums = bool(((labels.double().sum(1) - 1).abs() <= SUMS_TO_ONE).all())
    return "probabilities" if sums and float(labels.min()) >= 0 else "logits"


def _images(foreign: ForeignSet, reading: SetReading, splits: Splits, fitted: Fitted, say: Say) -> Tensor:
    """Images float32 (n, C, H, W) as networks see them."""
    values = reading.values or foreign.values
    if foreign.seen is not None and values == "seen":
        return _fitting(replace(foreign, images=foreign.seen), splits, resize=False)
    if foreign.seen is not None and values is None:
        problem = f"holds pixels, and {_range(foreign.seen)} beside them"
        raise ConfigError("set.values", problem, allowed=f"{BOTH_CHOICES}, which are the numbers beside them")
    images = foreign.images
    if images.dtype == torch.uint8:
        if reading.values == "seen":
            problem = f"is seen, and {foreign.where} holds bytes, which are pixels"
            raise ConfigError("set.values", problem, fix="leave set.values out")
        say(f"images are bytes, {int(images.min())} to {int(images.max())} of 0 to 255: taken as pixels")
        pixels = images.float() / 255
    elif values == "seen":
        if reading.resize and images.shape[2:] != splits.image_shape[1:]:
            raise ConfigError("set.resize", "numbers that are preprocessed cannot be resized", allowed="pixels")
        return _fitting(foreign, splits, resize=False)
    elif values is None:
        raise ConfigError("set.values", f"is asked for: {foreign.where} holds {_range(images)}", allowed=BOTH_CHOICES)
    else:
        _check_pixels(images, foreign.where)
        pixels = images.clamp(0, 1)
    return fitted.apply(_fitting(replace(foreign, images=pixels), splits, reading.resize, say))


def _check_pixels(images: Tensor, where: str) -> None:
    low, high = float(images.min()), float(images.max())
    if low < -BEYOND or high > 1 + BEYOND:
        of_bytes = low >= 0 and 1.5 < high <= 255
        fix = "divide them by 255, or save them as bytes (uint8)" if of_bytes else "set.values=seen, if so they are"
        raise IntegrityError(where, f"set.values=pixels, and it holds {_range(images)}", allowed="0 to 1", fix=fix)


def _fitting(foreign: ForeignSet, splits: Splits, resize: bool, say: Say = lambda text: None) -> Tensor:
    """The images with the data's channels and size.

    Raises:
        IntegrityError: they have other channels. ConfigError: another size, and nobody asked to resize.
    """
    images, (channels, height, width) = foreign.images, splits.image_shape
    allowed = f"(n, {channels}, {height}, {width})"
    if images.shape[1] != channels:
        if images.shape[1] != 1:
            problem = f"images are in colour {tuple(images.shape)}, those of {splits.name} are grey"
            raise IntegrityError(foreign.where, problem, allowed=allowed, fix="make them grey first")
        if foreign.values != "pixels":
            problem = f"images are grey {tuple(images.shape)}, those of {splits.name} have {channels} channels"
            raise IntegrityError(foreign.where, problem, allowed=allowed)
        say(f"pictures without colours: each of {channels} channels has their grey")
        images = images.expand(-1, channels, -1, -1).contiguous()
    if images.shape[2:] != (height, width):
        size = f"{images.shape[2]} x {images.shape[3]}"
        if not resize:
            problem = f"images are {size}, those of {splits.name} {height} x {width}"
            raise ConfigError(foreign.where, problem, allowed=allowed, fix="set.resize=true, for pixels")
        say(f"images of {size} are resized to {height} x {width}")
        images = resized(images, height, width)
    return images


def _range(images: Tensor) -> str:
    return f"floating-point numbers from {float(images.min()):.4g} to {float(images.max()):.4g}"
