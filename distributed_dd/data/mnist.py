"""MNIST and Fashion-MNIST in their four original files."""

import gzip
import tempfile
import zlib
from dataclasses import dataclass, replace
from io import BufferedIOBase
from pathlib import Path
from typing import ClassVar, Literal

from torch import Tensor
from torch.nn.functional import pad

from distributed_dd.data.decoded import Decoded
from distributed_dd.data.published import Published
from distributed_dd.data.reading import open_regular, read_at_most
from distributed_dd.data.splits import Facts, Images
from distributed_dd.errors import IntegrityError
from distributed_dd.family import setting

PARTS = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
MOST_BYTES = 16 + 60_000 * 28 * 28
"""The largest of the four, as published."""


@dataclass(frozen=True)
class MNIST(Published):
    """MNIST: 60,000 and 10,000 grey handwritten digits, 28x28."""

    label: ClassVar[str] = "mnist"
    layout: ClassVar[str] = "MNIST/raw/train-images-idx3-ubyte and three more, also as .gz"
    num_images: ClassVar[int] = 60_000
    folder: ClassVar[str] = "MNIST"
    names: ClassVar[tuple[str, ...]] = tuple("0123456789")

    size: Literal[28, 32] = setting("side of the images: 28, or 32 with two rows of zeros around", 32)

    @property
    def facts(self) -> Facts | None:
        """As published, padded, less what is set aside."""
        known = super().facts
        return known and replace(known, image_shape=(1, self.size, self.size))

    def files(self) -> list[Path]:
        """The four files, packed where they lie packed."""
        raw = Path(self.root) / self.folder / "raw"
        packed = [raw / f"{part}.gz" for part in PARTS]
        return [p if p.exists() and not p.with_suffix("").exists() else p.with_suffix("") for p in packed]

    def decoding(self) -> dict:
        """The padding."""
        return {"size": self.size}

    def download_to(self, root: Path) -> None:
        """Fetch with torchvision, which checks the published MD5."""
        from torchvision import datasets

        getattr(datasets, self.folder)(root, download=True)

    def decode(self) -> Decoded:
        """Read the four files."""
        from torchvision.datasets import mnist

        tensors = []
        for file, read in zip(self.files(), [mnist.read_image_file, mnist.read_label_file] * 2, strict=True):
            tensors.append(_read(file, read))
        for file, images in zip(self.files()[::2], tensors[::2], strict=True):
            if images.shape[1:] != (28, 28):
                raise IntegrityError(str(file), f"holds images of {tuple(images.shape[1:])}", allowed="(28, 28)")
        train, test = (Images(self._padded(x), y) for x, y in (tensors[:2], tensors[2:]))
        return Decoded(train, test, self.names)

    def _padded(self, images_nHW: Tensor) -> Tensor:
        around = (self.size - 28) // 2
        return pad(images_nHW.unsqueeze(1), [around] * 4)


@dataclass(frozen=True)
class FashionMNIST(MNIST):
    """Fashion-MNIST: 60,000 and 10,000 grey pictures of clothes, 28x28."""

    label: ClassVar[str] = "fashion_mnist"
    layout: ClassVar[str] = "FashionMNIST/raw/train-images-idx3-ubyte and three more, also as .gz"
    folder: ClassVar[str] = "FashionMNIST"
    names: ClassVar[tuple[str, ...]] = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )


def _read(file: Path, read) -> Tensor:
    where = str(file)
    try:
        with open_regular(file) as packed, tempfile.NamedTemporaryFile() as unpacked:  # torchvision reads paths only
            content: BufferedIOBase = gzip.GzipFile(fileobj=packed) if file.suffix == ".gz" else packed
            unpacked.write(read_at_most(content, MOST_BYTES, file))
            unpacked.flush()
            return read(unpacked.name)
    except (OSError, EOFError, ValueError, TypeError, AssertionError, LookupError, RuntimeError, zlib.error) as error:
        raise IntegrityError(where, f"is no IDX file of bytes: {error}", fix="delete it and fetch it again") from None
