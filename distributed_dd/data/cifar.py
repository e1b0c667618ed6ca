"""CIFAR-10 and CIFAR-100 in their original python files."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from distributed_dd.data.decoded import Decoded
from distributed_dd.data.published import Published
from distributed_dd.data.splits import Images
from distributed_dd.errors import IntegrityError


@dataclass(frozen=True)
class CIFAR10(Published):
    """CIFAR-10: 50,000 and 10,000 colour images of ten classes, 32x32."""

    label: ClassVar[str] = "cifar10"
    layout: ClassVar[str] = "cifar-10-batches-py/data_batch_1 .. 5, test_batch, batches.meta"
    num_images: ClassVar[int] = 50_000
    torchvision_name: ClassVar[str] = "CIFAR10"

    def files(self) -> list[Path]:
        """The pickled batches and the class names."""
        cls = self._class()
        names = [name for name, _ in (*cls.train_list, *cls.test_list)] + [cls.meta["filename"]]
        return [Path(self.root) / cls.base_folder / name for name in names]

    def download_to(self, root: Path) -> None:
        """Fetch with torchvision, which checks the published MD5."""
        self._class()(root, download=True)

    def decode(self) -> Decoded:
        """Unpickle, but only after every file has its published checksum (torchvision checks first)."""
        try:
            parts = [self._class()(self.root, train=train) for train in (True, False)]
        except RuntimeError:
            raise IntegrityError(
                str(Path(self.root) / self._class().base_folder),
                "a file differs from its published checksum, so it is not unpickled",
                fix=f"delete it, and fetch it again: {self.fetch}",
            ) from None
        train, test = (
            Images(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets))
            for part in parts
        )
        return Decoded(train, test, tuple(parts[0].classes))

    def _class(self):
        from torchvision import datasets

        return getattr(datasets, self.torchvision_name)


@dataclass(frozen=True)
class CIFAR100(CIFAR10):
    """CIFAR-100: 50,000 and 10,000 colour images of a hundred classes, 32x32."""

    label: ClassVar[str] = "cifar100"
    layout: ClassVar[str] = "cifar-100-python/train, test, meta"
    num_classes: ClassVar[int] = 100
    torchvision_name: ClassVar[str] = "CIFAR100"
