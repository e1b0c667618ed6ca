"""Real images as the networks see them, on the device."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

from distributed_dd.data import DataSource, Fitted, Images, Preprocessing, Splits
from distributed_dd.errors import ConfigError


@dataclass(frozen=True)
class Material:
    """A data set and its preprocessing, fitted on the training split when first asked for."""

    splits: Splits
    preprocessing: Preprocessing

    @cached_property
    def fitted(self) -> Fitted:
        """The map from pixels to network input."""
        return self.preprocessing.fit(self.splits.train.pixels())

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


def prepare(
    source: DataSource, preprocessing: Preprocessing, images_per_class: int, say: Callable[[str], None]
) -> Material:
    """Load a data set.

    Raises:
        ConfigError: a class has fewer than ``images_per_class`` training images.
    """
    splits = source.load(say)
    counts = torch.bincount(splits.train.targets, minlength=splits.num_classes)
    smallest = int(counts.argmin())
    if images_per_class > int(counts[smallest]):
        raise ConfigError(
            "images_per_class",
            f"{images_per_class} is more than the training images of class {splits.class_names[smallest]!r}",
            allowed=f"at most {int(counts[smallest])}",
        )
    return Material(splits, preprocessing)


def device() -> torch.device:
    """The accelerator that this process may use, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
