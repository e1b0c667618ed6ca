"""What a set of others holds, before it is fitted to the data that it is judged on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from distributed_dd.data.fingerprint import fingerprint
from distributed_dd.durable import sha256_of
from distributed_dd.errors import IntegrityError
from distributed_dd.family import setting

Values = Literal["pixels", "seen"]
FEW_FILES = 20


@dataclass(frozen=True)
class SetReading:
    """How a set of others is read, where its files do not say: ``set.*`` on the command line."""

    values: Values | None = setting(
        "what float images are: pixels in [0, 1], which are preprocessed; or seen, numbers as networks see them", None
    )
    class_names: tuple[str, ...] = setting(
        "the set's folders or names of classes, in the order of the data's classes (empty: by name or number)", ()
    )
    resize: bool = setting("bring pictures to the data's size: shorter side, then the centre", False)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The data that a set is for, as far as readers need them, and what a person said of the set.

    Attributes:
        image_shape: (C, H, W).
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    reading: SetReading = SetReading()


@dataclass(frozen=True, kw_only=True)
class ForeignSet:
    """A set as its files hold it.

    Attributes:
        where: what messages call it; ``labels_at`` for its labels. files: all that was read.
        images: uint8 or float32 (n, C, H, W). seen: float32 likewise, for a set that holds pixels and beside them the
            numbers that networks see. values: what ``images`` are, where that is certain.
        classes: int64 (n,), of the set's own order; None: as the labels say.
        labels: float32 (n, K), in that order; None: the classes alone.
        label_kind: what the labels are, where that is certain.
        class_names: of the set's own order; empty: classes are numbers.
        notes: lines for people.
    """

    where: str
    labels_at: str
    files: Sequence[Path]
    images: Tensor
    seen: Tensor | None = None
    values: Values | None = None
    classes: Tensor | None = None
    labels: Tensor | None = None
    label_kind: Literal["logits", "probabilities"] | None = None
    class_names: tuple[str, ...] = ()
    learning_rate: float | None = None
    notes: tuple[str, ...] = ()

    def sources(self, root: Path) -> dict[str, str]:
        """SHA-256 of the files by name; of many files, one digest of all."""
        if len(self.files) > FEW_FILES:
            return {f"{len(self.files)} files": fingerprint(self.files, root if root.is_dir() else root.parent)}
        base = root if root.is_dir() else root.parent
        return {str(file.relative_to(base)): sha256_of(file) for file in sorted(self.files)}


def channels_first(images: Tensor, where: str) -> Tensor:
    """Images (n, H, W), (n, H, W, C) or (n, C, H, W) as the last of these, C of 1 or 3.

    Raises:
        IntegrityError: they are of another shape.
    """
    if images.ndim == 3 and images.numel():
        return images.unsqueeze(1)
    if images.ndim == 4 and images.numel() and images.shape[1] in (1, 3):
        return images
    if images.ndim == 4 and images.numel() and images.shape[3] in (1, 3):
        return images.permute(0, 3, 1, 2).contiguous()
    allowed = "(n, C, H, W), (n, H, W, C) or (n, H, W), with C of 1 or 3"
    raise IntegrityError(where, f"images are {tuple(images.shape)}", allowed=allowed)


def as_numbers(values: Tensor, where: str, what: str) -> Tensor:
    """Floating-point numbers as finite float32; bytes as they are.

    Raises:
        IntegrityError: other numbers, or some that are not finite.
    """
    if values.dtype == torch.uint8:
        return values
    if not values.is_floating_point():
        raise IntegrityError(where, f"holds {values.dtype}", allowed=f"floating-point numbers or bytes: {what}")
    values = values.float()
    if not bool(values.isfinite().all()):
        raise IntegrityError(where, f"holds numbers that are not finite among {what}")
    return values
