"""scikit-learn's handwritten digits: 1,797 real 8x8 images that ship inside the package."""

from dataclasses import dataclass
from importlib.metadata import version

import torch

from distributed_dd.data.cache import Entry, Say, cached, silent
from distributed_dd.data.splits import Facts, Images, Splits, content_sha256, stratified
from distributed_dd.family import require, setting
from distributed_dd.learning.chance import generator


@dataclass(frozen=True)
class Digits:
    """scikit-learn's digits (1,797 grey images, 8x8, ten classes); nothing is downloaded."""

    num_test: int = setting("images set aside for the one final test", 540, at_least=100)
    num_validation: int = setting("images set aside for every choice", 257, at_least=50)
    split_seed: int = setting("seed of the split; not the run's seed, so that runs share a split", 0)

    def __post_init__(self) -> None:
        require(
            self.num_test + self.num_validation <= 1500,
            "num_test",
            f"test and validation take {self.num_test + self.num_validation} of 1,797 images",
            "together at most 1,500",
        )

    @property
    def name(self) -> str:
        """The data set's name in reports."""
        return "digits"

    @property
    def facts(self) -> Facts | None:
        """1,797 images, less what is set aside."""
        return Facts((1, 8, 8), 10, 1797 - self.num_test - self.num_validation)

    def load(self, say: Say = silent) -> Splits:
        """Pixels in [0, 1]; splits drawn class by class from ``split_seed``."""
        # Kept, as scikit-learn takes seconds to load.
        source, _ = cached("digits", {"digits": version("scikit-learn")}, _decoded)
        raw, targets = source["images"], source["targets"]
        images = (raw.float() / 16).unsqueeze(1)
        rng = generator(self.split_seed, "digits", "split")
        test, validation, train = stratified(targets, [self.num_test, self.num_validation], rng)
        parts = [Images(images[index], targets[index]) for index in (train, validation, test)]
        names = tuple(str(number) for number in range(10))
        return Splits(
            name=self.name,
            class_names=names,
            train=parts[0],
            validation=parts[1],
            test=parts[2],
            sha256=content_sha256(raw, targets),
        )


def _decoded() -> Entry:
    from sklearn.datasets import load_digits

    source = load_digits()
    images, targets = (torch.from_numpy(values) for values in (source.images, source.target))
    return {"images": images.to(torch.uint8), "targets": targets.long()}, {}
