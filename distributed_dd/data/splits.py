"""Who may see which images.

Two loops need four splits: the inner loop trains on the synthetic set itself; the outer loop learns
from `train` (experts, starting images, controls); every choice is made on `validation`; `test` is
touched once, at the end.
"""

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy
import torch
from torch import Tensor


@dataclass(frozen=True)
class Images:
    """Images (n, C, H, W), float32 or uint8 as decoded, and their classes (n,) int64."""

    images: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def __reduce__(self) -> tuple:
        # As arrays, which processes on one machine can share without a copy of their own.
        return _from_arrays, (self.images.numpy(), self.targets.numpy())

    def pixels(self) -> Tensor:
        """The images as float32; bytes become numbers in [0, 1]."""
        return self.images.float() / 255 if self.images.dtype == torch.uint8 else self.images

    def of_class(self, number: int) -> Tensor:
        """Indices of the images of one class, in order."""
        return (self.targets == number).nonzero().flatten()


def _from_arrays(images: numpy.ndarray, targets: numpy.ndarray) -> Images:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # shared arrays are read-only; nobody writes here
        return Images(torch.from_numpy(images), torch.from_numpy(targets))


@dataclass(frozen=True)
class Facts:
    """What an estimate of memory and work needs to know."""

    image_shape: tuple[int, int, int]
    num_classes: int
    num_train: int


@dataclass(frozen=True, kw_only=True)
class Splits:
    """A data set: three disjoint splits, class names in order, content hash, remarks for people.

    Images are bytes, or float32 pixels in [0, 1].
    """

    name: str
    class_names: tuple[str, ...]
    train: Images
    validation: Images
    test: Images
    sha256: str
    notes: tuple[str, ...] = ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def facts(self) -> Facts:
        """Shape, classes, training images."""
        return Facts(self.image_shape, self.num_classes, len(self.train))


class DataSource(Protocol):
    """A data set's configuration."""

    @property
    def name(self) -> str: ...

    @property
    def facts(self) -> Facts | None:
        """What is known before loading, for an estimate; None where only the files know."""
        ...

    def load(self, say: Callable[[str], None] = ...) -> Splits: ...


def content_sha256(*tensors: Tensor) -> str:
    """A hash of every value, with shapes and dtypes."""
    state = hashlib.sha256()
    for tensor in tensors:
        state.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        state.update(tensor.contiguous().numpy().tobytes())
    return state.hexdigest()


def stratified(targets_n: Tensor, sizes: list[int], rng: torch.Generator) -> list[Tensor]:
    """Disjoint random index sets of the given sizes, then the rest; classes in equal shares.

    Each set takes, class by class, its share of every class; what rounding leaves over goes to the
    classes with the largest remainder. Indices come sorted.
    """
    total = len(targets_n)
    counts = torch.bincount(targets_n)
    pools = targets_n.argsort(stable=True).split(counts.tolist())
    pools = [pool[torch.randperm(len(pool), generator=rng)] for pool in pools]
    taken = torch.zeros_like(counts)
    sets = []
    for size in sizes:
        exact = counts.double() * size / total
        share = exact.floor().long()
        leftover = size - int(share.sum())
        share[(exact - share).argsort(descending=True, stable=True)[:leftover]] += 1
        spans = zip(pools, taken.tolist(), share.tolist(), strict=True)
        sets.append(torch.cat([pool[a : a + n] for pool, a, n in spans]).sort().values)
        taken += share
    rest = torch.cat([pool[a:] for pool, a in zip(pools, taken.tolist(), strict=True)])
    return [*sets, rest.sort().values]
