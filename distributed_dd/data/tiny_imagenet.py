"""Tiny-ImageNet in its own folder layout: validation labels in a text file."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from distributed_dd.data.decoded import Decoded
from distributed_dd.data.pictures import Reading, read_pictures
from distributed_dd.data.published import Published
from distributed_dd.data.reading import read_text, shown
from distributed_dd.data.splits import Images
from distributed_dd.errors import IntegrityError

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"


@dataclass(frozen=True)
class TinyImageNet(Published):
    """Tiny-ImageNet: 100,000 and 10,000 colour images of two hundred classes, 64x64.

    The test split is the published validation split, as the labels of the published test split are
    not public.
    """

    label: ClassVar[str] = "tiny_imagenet"
    layout: ClassVar[str] = (
        "tiny-imagenet-200/ with wnids.txt, words.txt, train/<wnid>/images/*.JPEG, "
        "val/images/*.JPEG, val/val_annotations.txt"
    )
    shape: ClassVar[tuple[int, int, int]] = (3, 64, 64)
    num_classes: ClassVar[int] = 200
    num_images: ClassVar[int] = 100_000
    fetch: ClassVar[str] = f"curl -O {URL} && unzip tiny-imagenet-200.zip, or add data.download=true"

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return Path(self.root) / "tiny-imagenet-200"

    def files(self) -> list[Path]:
        """The text files and the picture folders."""
        names = ("wnids.txt", "words.txt", "val/val_annotations.txt", "val/images", "train")
        return [self.folder / name for name in names]

    def download_to(self, root: Path) -> None:
        """Fetch and unpack, checking the archive's MD5."""
        from torchvision.datasets.utils import download_and_extract_archive

        download_and_extract_archive(URL, str(root), md5=MD5)

    def decode(self) -> Decoded:
        """Read all pictures; classes in the order of their sorted WordNet ids."""
        wnids = sorted(set(read_text(self.folder / "wnids.txt").split()))
        if strange := [wnid for wnid in wnids if not wnid.isalnum()]:
            raise IntegrityError(str(self.folder / "wnids.txt"), f"names {shown(strange)}", allowed="WordNet ids")
        words = dict(_columns(self.folder / "words.txt"))
        number = {wnid: index for index, wnid in enumerate(wnids)}
        train = [(f, number[w]) for w in wnids for f in sorted(self._pictures_of(w).iterdir())]
        annotations = _columns(self.folder / "val" / "val_annotations.txt")
        if strange := [name for name, _ in annotations if Path(name).name != name]:
            raise IntegrityError(str(self.folder / "val" / "val_annotations.txt"), f"names {shown(strange)}")
        try:
            test = [(self.folder / "val" / "images" / name, number[wnid]) for name, wnid in annotations]
        except KeyError as error:
            where = str(self.folder / "val" / "val_annotations.txt")
            raise IntegrityError(where, f"names {error}, which is not in wnids.txt") from None
        names = tuple(words.get(wnid, wnid).split(",")[0] for wnid in wnids)
        if len(set(names)) < len(names):  # two kinds of crane, for instance
            names = tuple(f"{name} ({wnid})" for name, wnid in zip(names, wnids, strict=True))
        return Decoded(_read(train), _read(test), names)

    def _pictures_of(self, wnid: str) -> Path:
        folder = self.folder / "train" / wnid / "images"
        if not folder.is_dir():
            raise IntegrityError(str(folder), "is not there though wnids.txt names it", fix=self.fetch)
        return folder


def _columns(file: Path) -> list[tuple[str, str]]:
    rows = (line.split("\t") for line in read_text(file).splitlines() if line.strip())
    return [(row[0], row[1]) for row in rows if len(row) > 1]


def _read(labelled: list[tuple[Path, int]]) -> Images:
    read = read_pictures([file for file, _ in labelled], Reading())
    return Images(read.images, torch.tensor([target for _, target in labelled]))
