"""Anybody's pictures: one folder per class."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from distributed_dd.data.cache import Say, silent
from distributed_dd.data.decoded import Decoded
from distributed_dd.data.pictures import Reading, read_pictures
from distributed_dd.data.published import Sampled
from distributed_dd.data.reading import files_below, place_of, shown
from distributed_dd.data.splits import Images, Splits, stratified
from distributed_dd.errors import ConfigError, IntegrityError, MissingInputError
from distributed_dd.family import setting
from distributed_dd.learning.chance import generator
from distributed_dd.places import displayable

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
LAYOUT = "PATH/train/<class>/*.jpg and PATH/test/<class>/*.jpg, or PATH/<class>/*.jpg with test_fraction"
SPLIT_NAME = re.compile(r"(?:^|[_-])(?:train|training|test|testing|val|valid|validation)$", re.IGNORECASE)
# What macOS packs beside every file: no pictures, whatever they are called.
APPLE_FOLDER, APPLE_FILE = "__MACOSX", "._"
Pictures = dict[str, list[Path]]
"""Class -> its files in order."""


@dataclass(frozen=True, kw_only=True)
class ImageFolder(Sampled):
    """Your own pictures: train/<class>/ and test/<class>/, or <class>/ split by fraction."""

    path: str = setting("the folder", identity=False, folder=True)
    label: str | None = setting("the data set's name in reports (null: the folder's name)", None)
    size: int | None = setting(
        "resize the shorter side, then crop the centre square (null: as they are)", None, at_least=4, at_most=65_536
    )
    grey: bool = setting("one channel instead of three", False)
    test_fraction: float = setting("share set aside for the test, where there is no test folder", 0.2, above=0, below=1)
    unreadable: Literal["refuse", "skip"] = setting("what to do with a picture that cannot be read", "refuse")

    @property
    def name(self) -> str:
        """The data set's name in reports."""
        return self.label or displayable(Path(self.path).resolve().name)

    def load(self, say: Say = silent) -> Splits:
        """Pixels from the cache, or decoded once; then the splits.

        Raises:
            MissingInputError: no such folder. IntegrityError: pictures that cannot be read, or of
                several sizes. ConfigError: a train folder without a test folder's classes.
        """
        root, pictures = Path(self.path), self.listed()
        files = [file for of_split in pictures.values() for of_class in of_split.values() for file in of_class]
        how: dict = {"size": self.size, "grey": self.grey, "unreadable": self.unreadable, "as_shown": True}
        how["classes"] = {split: list(of_split) for split, of_split in pictures.items()}
        if "train" not in pictures:
            how |= {"test_fraction": self.test_fraction, "split_seed": self.split_seed}
        decoded = Decoded.cached(self.name, files, root, how=how, decode=lambda: self._decode(root, pictures), say=say)
        return self.splits_of(decoded, self.name)

    def listed(self) -> dict[str, Pictures]:
        """The files of each class, by split: ``train`` and ``test``, or ``.`` where a fraction is set aside.

        Raises:
            MissingInputError: no such folder, or no pictures. ConfigError: a train folder without a test folder.
        """
        root = Path(self.path)
        if not root.is_dir():
            raise MissingInputError(place_of(root), "there is no such folder", allowed=LAYOUT)
        pictures = {split: self._pictures(root / split) for split in self._splits(root)}
        if not any(files for of_split in pictures.values() for files in of_split.values()):
            raise MissingInputError(place_of(root), "holds no pictures in folders of classes", allowed=LAYOUT)
        return pictures

    def _splits(self, root: Path) -> tuple[str, ...]:
        if not (root / "train").is_dir():
            named = [entry.name for entry in root.iterdir() if entry.is_dir()]
            if named and all(map(SPLIT_NAME.search, named)):  # two "classes" would be learned otherwise
                problem = f"holds folders named as splits, not as classes: {shown(sorted(named))}"
                raise ConfigError("data.path", problem, allowed=LAYOUT, fix="name them train and test")
            return (".",)
        if not (root / "test").is_dir():
            problem = "there is a train folder, but no test folder beside it"
            raise ConfigError("data.path", problem, allowed=LAYOUT)
        return ("train", "test")

    def _pictures(self, root: Path) -> Pictures:
        """Pictures by class, in order; links are followed, and one that leads nowhere is an unreadable picture."""
        folders = [entry.name for entry in root.iterdir() if entry.is_dir()]
        classes = sorted(name for name in folders if name[0] != "." and name != APPLE_FOLDER)
        return {name: sorted(f for f in files_below(root / name) if _is_picture(f)) for name in classes}

    def _decode(self, root: Path, pictures: dict[str, Pictures]) -> Decoded:
        names, *others = map(tuple, pictures.values())
        if others and others[0] != names:
            unknown = sorted({*others[0]} ^ {*names})
            raise IntegrityError(place_of(root), f"train and test differ in their classes: {shown(unknown, 5)}")
        parts, notes = zip(*(self._read(of_split) for of_split in pictures.values()), strict=True)
        shown_names = tuple(map(displayable, names))
        if others:
            return Decoded(parts[0], parts[1], shown_names, (*notes[0], *notes[1]))
        (everything,) = parts
        rng = generator(self.split_seed, self.name, "test")
        test_size = round(self.test_fraction * len(everything))
        chosen = stratified(everything.targets, [test_size], rng)
        test, train = (Images(everything.images[index], everything.targets[index]) for index in chosen)
        return Decoded(train, test, shown_names, notes[0])

    def _read(self, pictures: Pictures) -> tuple[Images, tuple[str, ...]]:
        labelled = [(file, number) for number, files in enumerate(pictures.values()) for file in files]
        reading = Reading(self.grey, self.size, self.unreadable == "skip")
        read = read_pictures([file for file, _ in labelled], reading)
        targets = torch.tensor([number for _, number in labelled], dtype=torch.long)[read.kept]
        return Images(read.images, targets), read.notes


def _is_picture(file: Path) -> bool:
    if file.name.startswith(APPLE_FILE):
        return False
    return file.suffix.lower() in ENDINGS or not file.exists()
