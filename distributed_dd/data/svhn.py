"""Street View House Numbers, cropped digits."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from distributed_dd.data.decoded import Decoded
from distributed_dd.data.published import Published
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
    from scipy.io import loadmat

    try:
        content = loadmat(file)
        images = torch.from_numpy(content["X"]).permute(3, 2, 0, 1).contiguous()
        targets = torch.from_numpy(content["y"].astype("int64")).flatten()
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise IntegrityError(str(file), f"is not SVHN's format: {error}", fix="fetch it again") from None
    return Images(images, torch.where(targets == 10, 0, targets))
