"""Real images as the networks see them, on the device."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from distributed_dd.data import DataSource, Fitted, Images, Preprocessing, Splits
from distributed_dd.errors import ConfigError


@dataclass(frozen=True)
class Material:
    """A data set after preprocessing; ``splits`` holds the pixels it came from."""

    splits: Splits
    fitted: Fitted
    train: Images
    validation: Images

    @property
    def test(self) -> Images:
        """The test images, preprocessed with training statistics. For the final evaluation only."""
        return Images(self.fitted.apply(self.splits.test.pixels()), self.splits.test.targets)


def prepare(
    source: DataSource, preprocessing: Preprocessing, images_per_class: int, say: Callable[[str], None]
) -> Material:
    """Load a data set and fit its preprocessing on the training split.

    Raises:
        ConfigError: a class has fewer than ``images_per_class`` training images.
    """
    splits = source.load(say)
    fitted = preprocessing.fit(splits.train.pixels())
    counts = torch.bincount(splits.train.targets, minlength=splits.num_classes)
    smallest = int(counts.argmin())
    if images_per_class > int(counts[smallest]):
        raise ConfigError(
            "images_per_class",
            f"{images_per_class} is more than the training images of class {splits.class_names[smallest]!r}",
            allowed=f"at most {int(counts[smallest])}",
        )

    def on(images: Images) -> Images:
        return Images(fitted.apply(images.pixels()), images.targets)

    return Material(splits, fitted, on(splits.train), on(splits.validation))


def device() -> torch.device:
    """The accelerator that this process may use, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
