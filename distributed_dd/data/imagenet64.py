"""Downsampled ImageNet (Chrabaszcz, Loshchilov, Hutter, arXiv 1707.08819) in its own npz files."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy
import torch

from distributed_dd.data.archives import described, read_arrays, whole_labels
from distributed_dd.data.decoded import Decoded
from distributed_dd.data.published import Published
from distributed_dd.data.reading import read_text
from distributed_dd.data.splits import Images
from distributed_dd.errors import IntegrityError, UserError


@dataclass(frozen=True)
class ImageNet64(Published):
    """ImageNet-1K at 64x64: 1,281,167 and 50,000 colour images of a thousand classes.

    The test split is the published validation split. Class names are those of ``map_clsloc.txt``, if that
    file lies beside the others. The images take 15.7 GB as bytes, and four times that once preprocessed.
    """

    label: ClassVar[str] = "imagenet64"
    layout: ClassVar[str] = "imagenet64/train_data_batch_1 .. 10.npz, val_data.npz"
    shape: ClassVar[tuple[int, int, int]] = (3, 64, 64)
    num_classes: ClassVar[int] = 1000
    num_images: ClassVar[int] = 1_281_167
    num_batches: ClassVar[int] = 10
    fetch: ClassVar[str] = (
        "log in at image-net.org, download Imagenet64_train_part1_npz.zip, _part2_npz.zip and "
        "Imagenet64_val_npz.zip (downsampled image data), and unpack them into imagenet64/"
    )

    def files(self) -> list[Path]:
        """The batches, and the names of classes where they are there."""
        return [*self._batches, *([self._map] if self._map.exists() else [])]

    @property
    def _batches(self) -> list[Path]:
        names = [f"train_data_batch_{n}.npz" for n in range(1, self.num_batches + 1)]
        return [self._map.with_name(name) for name in (*names, "val_data.npz")]

    @property
    def _map(self) -> Path:
        return Path(self.root) / "imagenet64" / "map_clsloc.txt"

    def download_to(self, root: Path) -> None:
        """Refuse: the site wants a login.

        Raises:
            UserError: always.
        """
        raise UserError("data.download", "ImageNet cannot be fetched without a login", fix=self.fetch)

    def decode(self) -> Decoded:
        """Read all batches; classes in the order of the published numbers."""
        *train, test = (self._read(file) for file in self._batches)
        images, targets = (torch.cat([getattr(part, n) for part in train]) for n in ("images", "targets"))
        count = int(torch.cat([targets, test.targets]).max()) + 1
        return Decoded(Images(images, targets), test, self._names(count))

    def _read(self, file: Path) -> Images:
        arrays = read_arrays(file, ("data", "labels"))
        if missing := [name for name in ("data", "labels") if name not in arrays]:
            raise IntegrityError(str(file), f"has no {missing[0]}", fix=self.fetch)
        data = arrays["data"]
        if data.dtype != numpy.uint8 or data.ndim != 2 or data.shape[1] != 3 * 64 * 64:
            raise IntegrityError(str(file), f"data is {described(data)}", allowed="uint8 (n, 12288)")
        labels = whole_labels(arrays["labels"], len(data), self.num_classes + 1, str(file), "labels")
        # Published from 1 on.
        return Images(torch.from_numpy(data).view(-1, *self.shape), torch.from_numpy(labels) - 1)

    def _names(self, count: int) -> tuple[str, ...]:
        """Class names, with the WordNet id where two are alike."""
        names = [f"class {number + 1}" for number in range(count)]
        if not self._map.exists():
            return tuple(names)
        try:
            rows = [line.split() for line in read_text(self._map).splitlines() if line.strip()]
            words = [word.replace("_", " ") for _, _, word in rows]
            for (wnid, number, _), word in zip(rows, words, strict=True):
                if 1 <= int(number) <= count:
                    names[int(number) - 1] = f"{word} ({wnid})" if words.count(word) > 1 else word
        except ValueError as error:
            raise IntegrityError(str(self._map), f"is no table of id, number and name: {error}") from None
        return tuple(names)
