"""What published data sets share: where they lie, how they are fetched, what is set aside."""

import os
import socket
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from http.client import HTTPException
from itertools import chain
from pathlib import Path
from typing import ClassVar

from distributed_dd.data.cache import Say, silent
from distributed_dd.data.decoded import Decoded
from distributed_dd.data.reading import check_regular, files_below
from distributed_dd.data.splits import Facts, Splits
from distributed_dd.errors import IntegrityError, MissingInputError, UserError
from distributed_dd.family import setting

SECONDS_OF_SILENCE = 60.0
"""A server that says nothing for so long is given up."""


@dataclass(frozen=True)
class Sampled:
    """Settings of every source that has its own test split."""

    validation_fraction: float = setting(
        "share of the training images set aside for every choice", 0.1, above=0, below=1
    )
    num_train: int | None = setting(
        "use only so many of the other training images, class by class (null: all)", None, at_least=2
    )
    split_seed: int = setting("seed of the split; not the run's seed, so that runs share a split", 0)

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

    root: str = setting("folder that holds the data set's own folder", "data", identity=False, folder=True)
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
        if self.download and not all(file.exists() for file in self.files()):
            say(f"fetching {self.label} into {Path(self.root).resolve()}")
            self._fetch()
        files = self.files()
        missing = [str(file) for file in files if not file.exists()]
        if missing:
            raise MissingInputError(
                str(Path(self.root).resolve()),
                f"holds no {self.label}: {missing[0]} is not there",
                allowed=f"this layout below data.root: {self.layout}",
                fix=f"set data.root, or fetch it: {self.fetch}",
            )
        contents = [*chain.from_iterable(map(self._contents, files))]
        decoded = Decoded.cached(
            self.label, contents, Path(self.root), how=self.decoding(), decode=self._decode_whole, say=say
        )
        return self.splits_of(decoded, self.label)

    def files(self) -> list[Path]:
        """The files and folders that are fetched where one is missing, and decoded anew where one has changed."""
        raise NotImplementedError

    def _contents(self, path: Path) -> list[Path]:
        if path.is_dir():
            return [*files_below(path)]
        check_regular(path, self.layout)
        return [path]

    def _decode_whole(self) -> Decoded:
        decoded = self.decode()
        for part in (decoded.train, decoded.test):
            if self.facts is not None and part.images.shape[1:] != self.facts.image_shape:
                problem = f"holds images of {tuple(part.images.shape[1:])}, which is not {self.label}"
                raise IntegrityError(str(Path(self.root)), problem, allowed=str(self.facts.image_shape))
        return decoded

    def _fetch(self) -> None:
        """Download into a folder beside the final one: what a kill or a lost connection leaves is never read.

        Raises:
            UserError: it cannot be fetched, or not written.
        """
        root = Path(self.root)
        before = socket.getdefaulttimeout()
        try:
            socket.setdefaulttimeout(SECONDS_OF_SILENCE)
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".fetching-", dir=root) as part:
                self.download_to(Path(part))
                _merge(Path(part), root)
        except (OSError, RuntimeError, EOFError, HTTPException, zipfile.BadZipFile, tarfile.TarError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            problem = f"{self.label} cannot be fetched: {reason}"
            raise UserError("data.download", problem, fix="try again, or lay it below data.root yourself") from None
        finally:
            socket.setdefaulttimeout(before)

    def decoding(self) -> dict:
        """Settings that change the decoded bytes."""
        return {}

    def download_to(self, root: Path) -> None:
        """Fetch the data set."""
        raise NotImplementedError

    def decode(self) -> Decoded:
        """Read all images."""
        raise NotImplementedError


def _merge(source: Path, target: Path) -> None:
    """Move everything in ``source`` into the folder ``target``, files over files of the same name."""
    for entry in list(source.iterdir()):
        place = target / entry.name
        if entry.is_dir() and place.is_dir():
            _merge(entry, place)
        else:
            os.replace(entry, place)
