"""Street View House Numbers, cropped digits."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy
import torch

from distributed_dd.data.decoded import Decoded
from distributed_dd.data.published import Published
from distributed_dd.data.reading import shown
from distributed_dd.data.splits import Images
from distributed_dd.errors import IntegrityError


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
    from scipy.io import loadmat, whosmat

    try:
        shapes = {name: (shape, dtype) for name, shape, dtype in whosmat(file)}  # its headers alone
        shape, dtype = shapes["X"]
        count = shape[-1]
        if shape != (32, 32, 3, count) or dtype != "uint8" or not 0 < count <= SVHN.num_images:
            raise ValueError(f"X is {dtype} {shape}, not uint8 (32, 32, 3, n)")
        if shapes["y"][0] != (count, 1):
            raise ValueError(f"y is {shapes['y'][0]}, not {(count, 1)}")
        content = loadmat(file, variable_names=["X", "y"])
        labels = content["y"].flatten()
        if not numpy.isin(labels, range(1, 11)).all():
            raise ValueError("y holds other numbers than 1 .. 10")
    except Exception as error:  # the reader fails in many ways where a file is not what it expects
        said = f"is not SVHN's format: {shown([str(error)])}"
        raise IntegrityError(str(file), said, fix="delete it and fetch it again") from None
    images = torch.from_numpy(content["X"]).permute(3, 2, 0, 1).contiguous()
    targets = torch.from_numpy(labels.astype("int64"))
    return Images(images, torch.where(targets == 10, 0, targets))
