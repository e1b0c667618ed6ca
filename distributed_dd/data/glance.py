"""What can be known of a data set without decoding it: classes, counts, sizes of pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from pathlib import Path
from statistics import median

import numpy
from PIL import Image

from distributed_dd.data.archives import read_arrays, shape_in, whole_labels
from distributed_dd.data.arrays import IMAGES, Arrays
from distributed_dd.data.image_folder import ImageFolder
from distributed_dd.data.pictures import FORMATS
from distributed_dd.data.published import Published
from distributed_dd.data.reading import open_regular, place_of
from distributed_dd.data.splits import DataSource
from distributed_dd.errors import IntegrityError, UserError

MOST_OPENED = 2_000
"""Pictures whose heads are read; of more, every so-manieth."""
GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B")


@dataclass(frozen=True, kw_only=True)
class Glance:
    """A data set at first sight.

    Attributes:
        num_images: of all splits that are known.
        num_offered: images that training, and what is set aside from it, are taken from.
        per_class: of these, those of the smallest and of the largest class.
        train_share: of these, what is left for training once test and validation are set aside.
        channels: 1 or 3.
        smallest, largest: (height, width) of pictures, by area.
        shorter_side: the median over pictures.
        present: whether its files are on this machine.
        sizable: whether its ``size`` setting resizes pictures.
    """

    name: str
    num_classes: int
    num_images: int
    num_offered: int
    per_class: tuple[int, int]
    train_share: float
    channels: int
    smallest: tuple[int, int]
    largest: tuple[int, int]
    shorter_side: int
    present: bool = True
    sizable: bool = False

    @property
    def fewest_for_training(self) -> int:
        """Training images of the smallest class, roughly: rounding decides about one."""
        return int(self.per_class[0] * self.train_share)

    @property
    def num_train(self) -> int:
        """Training images, roughly."""
        return int(self.num_offered * self.train_share)


@singledispatch
def glance_at(source: DataSource) -> Glance:
    """What a data set is, at first sight.

    Raises:
        MissingInputError: one's own data are not there. IntegrityError: they are not what they should be.
        TypeError: a kind that does not say what it is before it is read.
    """
    facts = source.facts
    if facts is None:
        raise TypeError(f"{type(source).__name__} says nothing before its files are read")
    channels, height, width = facts.image_shape
    of_each = facts.num_train // facts.num_classes
    return Glance(
        name=source.name,
        num_classes=facts.num_classes,
        num_images=facts.num_train,
        num_offered=facts.num_train,
        per_class=(of_each, of_each),
        train_share=1.0,
        channels=channels,
        smallest=(height, width),
        largest=(height, width),
        shorter_side=min(height, width),
    )


@glance_at.register
def _published(source: Published) -> Glance:
    known = glance_at.dispatch(object)(source)
    return replace(known, present=all(file.exists() for file in source.files()))


@glance_at.register
def _folder(source: ImageFolder) -> Glance:
    listed = source.listed()
    by_fraction = "." in listed
    of_classes = [len(files) for files in next(iter(listed.values())).values()]
    files = [file for of_split in listed.values() for of_class in of_split.values() for file in of_class]
    shapes, grey = _heads(files[:: 1 + len(files) // MOST_OPENED], source.path)
    return Glance(
        name=source.name,
        num_classes=len(of_classes),
        num_images=len(files),
        num_offered=sum(of_classes),
        per_class=(min(of_classes), max(of_classes)),
        train_share=(1 - source.test_fraction * by_fraction) * (1 - source.validation_fraction),
        channels=1 if grey else 3,
        smallest=min(shapes, key=_area),
        largest=max(shapes, key=_area),
        shorter_side=int(median(map(min, shapes))),
        sizable=True,
    )


@glance_at.register
def _arrays(source: Arrays) -> Glance:
    path, splits = Path(source.path), source.splits_there()
    shapes = [shape_in(path, f"{split}images") for split in splits]
    num_images = [shape[0] if shape else 0 for shape in shapes]
    channels, height, width = _image_shape(shapes[0], source.path)
    name = f"{splits[0]}labels"
    labels = read_arrays(path, [name]).get(name, numpy.empty(0))
    counts = numpy.bincount(whole_labels(labels, num_images[0], max(2, num_images[0]), source.path, name))
    own_validation = "val_" in splits
    return Glance(
        name=source.name,
        num_classes=len(counts),
        num_images=sum(num_images),
        num_offered=num_images[0],
        per_class=(int(counts.min()), int(counts.max())),
        train_share=(1 - source.test_fraction * ("" in splits))
        * (1 - source.validation_fraction * (not own_validation)),
        channels=channels,
        smallest=(height, width),
        largest=(height, width),
        shorter_side=min(height, width),
    )


def _image_shape(shape: tuple[int, ...], where: str) -> tuple[int, int, int]:
    """(C, H, W) of arrays as `Arrays` takes them."""
    if len(shape) == 3:
        return 1, shape[1], shape[2]
    if len(shape) == 4 and shape[1] in (1, 3):
        return shape[1], shape[2], shape[3]
    if len(shape) == 4 and shape[3] in (1, 3):
        return shape[3], shape[1], shape[2]
    raise IntegrityError(where, f"images are {shape}", allowed=IMAGES)


def _heads(files: Sequence[Path], where: str) -> tuple[list[tuple[int, int]], bool]:
    """(height, width) of each picture that can be opened, and whether all are grey; no pixel is decoded."""
    shapes, grey = [], True
    for file in files:
        try:
            with open_regular(file) as content, Image.open(content, formats=FORMATS) as picture:
                shapes.append((picture.height, picture.width))
                grey = grey and picture.mode in GREY_MODES
        except (UserError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue  # the run says what is wrong with it
    if not shapes:
        raise IntegrityError(place_of(Path(where)), f"none of {len(files)} pictures can be opened")
    return shapes, grey


def _area(shape: tuple[int, int]) -> int:
    return shape[0] * shape[1]
