"""Real images as the networks see them, on the device."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from distributed_dd.data import DataSource, Fitted, Images, Preprocessing, Splits
from distributed_dd.data.cache import Say, cached, silent
from distributed_dd.data.splits import content_sha256
from distributed_dd.errors import ConfigError
from distributed_dd.family import plain


@dataclass(frozen=True)
class Material:
    """A data set and its preprocessing, fitted on the training split when first asked for."""

    splits: Splits
    preprocessing: Preprocessing
    say: Say = silent

    @cached_property
    def fitted(self) -> Fitted:
        """The map from pixels to network input.

        A costly one is kept in the cache: besides the minutes, an eigen-decomposition on another number of
        threads may round differently, and a resumed run must see the same images.
        """
        if not self.preprocessing.costly:
            return self.preprocessing.fit(self.splits.train.pixels())
        train = self.splits.train
        identity = {
            "preprocessing": type(self.preprocessing).__name__,
            **plain(self.preprocessing),
            "train_sha256": content_sha256(train.images, train.targets),
        }
        what = f"fitting the preprocessing to {self.splits.name}"
        tensors, _ = cached(what, identity, lambda: (self.preprocessing.fit(train.pixels()).tensors(), {}), self.say)
        return Fitted(**tensors)

    @property
    def pixels(self) -> Images:
        """The training images as they are stored."""
        return self.splits.train

    @cached_property
    def train(self) -> Images:
        """The training images as the networks see them."""
        return self._seen(self.splits.train)

    @cached_property
    def validation(self) -> Images:
        """The validation images as the networks see them."""
        return self._seen(self.splits.validation)

    @property
    def test(self) -> Images:
        """The test images, preprocessed with training statistics. For the final evaluation only."""
        return self._seen(self.splits.test)

    def _seen(self, images: Images) -> Images:
        return Images(self.fitted.apply(images.pixels()), images.targets)


def identity_of_data(material: Material, preprocessing: Preprocessing) -> dict[str, Any]:
    """The training images and what networks see of them, for the identity of what is made from them."""
    splits = material.splits
    return {
        "data": splits.name,
        "data_sha256": splits.sha256,
        "num_train": len(splits.train),
        "train_sha256": content_sha256(splits.train.images, splits.train.targets),
        "preprocessing": {"kind": type(preprocessing).__name__.lower(), **plain(preprocessing)},
    }


def prepare(source: DataSource, preprocessing: Preprocessing, images_per_class: int, say: Say = silent) -> Material:
    """Load a data set.

    Raises:
        ConfigError: a class has fewer than ``images_per_class`` training images.
    """
    splits = source.load(say)
    refuse_without_images(splits, images_per_class)
    return Material(splits, preprocessing, say)


def refuse_without_images(splits: Splits, images_per_class: int, pictures: int = 1) -> None:
    """Refuse a set that would begin with more images of a class than there are.

    Args:
        pictures: that each of ``images_per_class`` holds.

    Raises:
        ConfigError: a class has fewer training images.
    """
    counts = torch.bincount(splits.train.targets, minlength=splits.num_classes)
    smallest = int(counts.argmin())
    if images_per_class * pictures > int(counts[smallest]):
        each = f", of {pictures} pictures each (set.form)," if pictures > 1 else ""
        raise ConfigError(
            "images_per_class",
            f"{images_per_class}{each} is more than the training images of class {splits.class_names[smallest]!r}",
            allowed=f"at most {int(counts[smallest]) // pictures}",
        )
