"""What published data sets share: where they lie, how they are fetched, what is set aside."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from distributed_dd.data.cache import Say, fingerprint, silent
from distributed_dd.data.decoded import Decoded
from distributed_dd.data.splits import Facts, Splits
from distributed_dd.errors import MissingInputError
from distributed_dd.family import require, setting


@dataclass(frozen=True)
class Sampled:
    """Settings of every source that has its own test split."""

    validation_fraction: float = setting("share of the training images set aside for every choice", 0.1)
    num_train: int | None = setting("use only so many of the other training images, class by class (null: all)", None)
    split_seed: int = setting("seed of the split; not the run's seed, so that runs share a split", 0)

    def __post_init__(self) -> None:
        share = self.validation_fraction
        require(0 < share < 1, "validation_fraction", f"got {share}", "between 0 and 1")
        require(self.num_train is None or self.num_train >= 2, "num_train", f"got {self.num_train}", "2 or more")

    @property
    def facts(self) -> Facts | None:
        """Unknown before the files are read."""
        return None

    def splits_of(self, decoded: Decoded, name: str) -> Splits:
        """The three splits."""
        return decoded.split(name, self.validation_fraction, self.num_train, self.split_seed)


@dataclass(frozen=True)
class Published(Sampled):
    """A data set with published files.

    A member says its ``label`` (the name in reports), its ``shape``, the ``layout`` of its files below
    ``root``, the ``fetch`` command, and how to `decode` them.
    """

    label: ClassVar[str]
    layout: ClassVar[str]
    shape: ClassVar[tuple[int, int, int]] = (3, 32, 32)
    num_classes: ClassVar[int] = 10
    num_images: ClassVar[int]
    fetch: ClassVar[str] = "add data.download=true"

    root: str = setting("folder that holds the data set's own folder", "data", identity=False)
    download: bool = setting("fetch it if it is not there", False, identity=False)

    @property
    def name(self) -> str:
        """The data set's name in reports."""
        return self.label

    @property
    def facts(self) -> Facts | None:
        """As published, less what is set aside."""
        left = self.num_images - round(self.validation_fraction * self.num_images)
        return Facts(self.shape, self.num_classes, min(left, self.num_train or left))

    def load(self, say: Say = silent) -> Splits:
        """Bytes from the cache, or decoded once; then the splits.

        Raises:
            MissingInputError: files are missing. IntegrityError: a file is not what was published.
        """
        files = self.files()
        if not all(file.exists() for file in files) and self.download:
            say(f"fetching {self.label} into {Path(self.root).resolve()}")
            self.download_to(Path(self.root))
        missing = [str(file) for file in files if not file.exists()]
        if missing:
            raise MissingInputError(
                str(Path(self.root).resolve()),
                f"holds no {self.label}: {missing[0]} is not there",
                allowed=f"this layout below data.root: {self.layout}",
                fix=f"set data.root, or fetch it: {self.fetch}",
            )
        identity = {"files": fingerprint(files), "how": self.decoding()}
        decoded = Decoded.cached(self.label, identity, self.decode, str(Path(self.root)), say)
        return self.splits_of(decoded, self.label)

    def files(self) -> list[Path]:
        """The files that are fetched where one is missing, and decoded anew where one has changed."""
        raise NotImplementedError

    def decoding(self) -> dict:
        """Settings that change the decoded bytes."""
        return {}

    def download_to(self, root: Path) -> None:
        """Fetch the data set."""
        raise NotImplementedError

    def decode(self) -> Decoded:
        """Read all images."""
        raise NotImplementedError
