"""Street View House Numbers, cropped digits."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from distributed_dd.data.confined import read_confined
from distributed_dd.data.decoded import Decoded
from distributed_dd.data.published import Published
from distributed_dd.data.splits import Images
from distributed_dd.errors import IntegrityError

AGAIN = "delete it and fetch it again"


@dataclass(frozen=True)
class SVHN(Published):
    """SVHN: 73,257 and 26,032 colour images of house-number digits, 32x32."""

    label: ClassVar[str] = "svhn"
    layout: ClassVar[str] = "SVHN/train_32x32.mat and test_32x32.mat"
    num_images: ClassVar[int] = 73_257

    def files(self) -> list[Path]:
        """The two MATLAB files."""
        return [Path(self.root) / "SVHN" / f"{split}_32x32.mat" for split in ("train", "test")]

    def download_to(self, root: Path) -> None:
        """Fetch with torchvision, which checks the published MD5."""
        from torchvision.datasets import SVHN as Original

        for split in ("train", "test"):
            Original(str(root / "SVHN"), split, download=True)

    def decode(self) -> Decoded:
        """Read the two files; their label 10 is the digit 0."""
        train, test = (_read(file) for file in self.files())
        return Decoded(train, test, tuple("0123456789"))


def _read(file: Path) -> Images:
    tensors = read_confined("distributed_dd.data.matlab", file, "is not SVHN's format", fix=AGAIN)
    images, targets = tensors["X"], tensors["y"]
    if images.dtype != torch.uint8 or images.shape[:3] != (32, 32, 3) or targets.shape != (images.shape[-1], 1):
        problem = f"is not SVHN's format: X is {images.dtype} {tuple(images.shape)}, y is {tuple(targets.shape)}"
        raise IntegrityError(str(file), problem, allowed="X uint8 (32, 32, 3, n), y (n, 1)", fix=AGAIN)
    if not bool(torch.isin(targets.double(), torch.arange(1, 11).double()).all()):
        raise IntegrityError(str(file), "is not SVHN's format: y holds other numbers than 1 .. 10", fix=AGAIN)
    targets = targets.long().flatten()
    return Images(images.permute(3, 2, 0, 1).contiguous(), torch.where(targets == 10, 0, targets))
