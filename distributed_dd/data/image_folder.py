"""Anybody's pictures: one folder per class."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from distributed_dd.data.cache import Say, fingerprint, silent
from distributed_dd.data.decoded import Decoded
from distributed_dd.data.pictures import Reading, read_pictures
from distributed_dd.data.published import Sampled
from distributed_dd.data.splits import Images, Splits, stratified
from distributed_dd.errors import ConfigError, IntegrityError, MissingInputError
from distributed_dd.family import require, setting
from distributed_dd.learning.chance import generator

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
LAYOUT = "PATH/train/<class>/*.jpg and PATH/test/<class>/*.jpg, or PATH/<class>/*.jpg with test_fraction"


@dataclass(frozen=True, kw_only=True)
class ImageFolder(Sampled):
    """Your own pictures: train/<class>/ and test/<class>/, or <class>/ split by fraction."""

    path: str = setting("the folder", identity=False)
    label: str | None = setting("the data set's name in reports (null: the folder's name)", None)
    size: int | None = setting("resize the shorter side, then crop the centre square (null: as they are)", None)
    grey: bool = setting("one channel instead of three", False)
    test_fraction: float = setting("share set aside for the test, where there is no test folder", 0.2)
    unreadable: Literal["refuse", "skip"] = setting("what to do with a picture that cannot be read", "refuse")

    def __post_init__(self) -> None:
        super().__post_init__()
        share = self.test_fraction
        require(0 < share < 1, "test_fraction", f"got {share}", "between 0 and 1")
        require(self.size is None or self.size >= 4, "size", f"got {self.size}", "4 or more, or null")

    @property
    def name(self) -> str:
        """The data set's name in reports."""
        return self.label or Path(self.path).resolve().name

    def load(self, say: Say = silent) -> Splits:
        """Pixels from the cache, or decoded once; then the splits.

        Raises:
            MissingInputError: no such folder. IntegrityError: pictures that cannot be read, or of
                several sizes. ConfigError: a train folder without a test folder's classes.
        """
        root = Path(self.path)
        if not root.is_dir():
            raise MissingInputError(str(root.resolve()), "there is no such folder", allowed=LAYOUT)
        files = [f for f in root.rglob("*") if f.suffix.lower() in ENDINGS]
        if not files:
            raise MissingInputError(str(root.resolve()), "holds no pictures", allowed=LAYOUT)
        how: dict = {"size": self.size, "grey": self.grey, "unreadable": self.unreadable}
        if not (root / "train").is_dir():
            how |= {"test_fraction": self.test_fraction, "split_seed": self.split_seed}
        identity = {"files": fingerprint(files), "how": how}
        decoded = Decoded.cached(self.name, identity, lambda: self._decode(root), str(root), say)
        return self.splits_of(decoded, self.name)

    def _decode(self, root: Path) -> Decoded:
        if not (root / "train").is_dir():
            names = _classes(root)
            everything, notes = self._read(root, names)
            targets = everything.targets
            rng = generator(self.split_seed, self.name, "test")
            test_size = round(self.test_fraction * len(targets))
            chosen = stratified(targets, [test_size], rng)
            test, train = (Images(everything.images[index], targets[index]) for index in chosen)
            return Decoded(train, test, names, notes)
        names = _classes(root / "train")
        if not (root / "test").is_dir():
            problem = "there is a train folder, but no test folder beside it"
            raise ConfigError("data.path", problem, allowed=LAYOUT)
        if (others := _classes(root / "test")) != names:
            unknown = sorted(set(others) ^ set(names))
            raise IntegrityError(str(root), f"train and test differ in their classes: {', '.join(unknown[:5])}")
        train, train_notes = self._read(root / "train", names)
        test, test_notes = self._read(root / "test", names)
        return Decoded(train, test, names, train_notes + test_notes)

    def _read(self, root: Path, names: tuple[str, ...]) -> tuple[Images, tuple[str, ...]]:
        labelled = [
            (file, number)
            for number, name in enumerate(names)
            for file in sorted((root / name).rglob("*"))
            if file.suffix.lower() in ENDINGS
        ]
        reading = Reading(self.grey, self.size, self.unreadable == "skip")
        images, kept, bad = read_pictures([file for file, _ in labelled], reading)
        targets: Tensor = torch.tensor([number for _, number in labelled])[kept]
        notes = (f"{len(bad)} unreadable pictures were skipped, such as {bad[0]}",) if bad else ()
        return Images(images, targets), notes


def _classes(root: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in root.iterdir() if entry.is_dir() and entry.name[0] != "."))
