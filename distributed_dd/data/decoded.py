"""Every image of a data set as bytes, checked, before anything is set aside for validation."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distributed_dd.data.cache import Entry, Say, cached
from distributed_dd.data.fingerprint import check_unchanged, fingerprint, states_of
from distributed_dd.data.splits import Images, Splits, content_sha256, stratified
from distributed_dd.errors import ConfigError, IntegrityError
from distributed_dd.learning.chance import generator


@dataclass(frozen=True)
class Decoded:
    """Images of each split, uint8 (n, C, H, W) in 0 .. 255, class names in order, remarks for people.

    ``validation`` is None where the data set has no such split: a part of ``train`` is set aside for it.
    """

    train: Images
    test: Images
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    validation: Images | None = field(default=None, kw_only=True)

    @property
    def parts(self) -> dict[str, Images]:
        """Split -> its images, of the splits that the data set has."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {split: images for split, images in splits.items() if images is not None}

    @classmethod
    def cached(
        cls,
        name: str,
        files: Sequence[Path],
        root: Path,
        *,
        how: dict[str, Any],
        decode: Callable[[], "Decoded"],
        say: Say,
    ) -> "Decoded":
        """What ``decode`` makes of ``files`` below ``root``, checked; from the cache if it was decoded before.

        Args:
            how: settings that change the decoded bytes.

        Raises:
            IntegrityError: as `checked`, or a file changed while it was decoded.
        """
        states = states_of(files)

        def make() -> Entry:
            decoded = decode().checked(str(root))
            check_unchanged(states)
            tensors: dict[str, Tensor] = {}
            for split, part in decoded.parts.items():
                tensors |= {f"{split}_images": part.images, f"{split}_targets": part.targets}
            return tensors, {"class_names": decoded.class_names, "notes": decoded.notes}

        identity = {"name": name, "files": fingerprint(files, root), "how": how}
        tensors, facts = cached(f"decoding {name}", identity, make, say)
        splits = [split for split in ("train", "validation", "test") if f"{split}_images" in tensors]
        parts = {split: Images(tensors[f"{split}_images"], tensors[f"{split}_targets"]) for split in splits}
        return cls(class_names=tuple(facts["class_names"]), notes=tuple(facts["notes"]), **parts)

    def checked(self, where: str) -> "Decoded":
        """Itself, with notes on images that also occur in a split that they should be new to.

        Raises:
            IntegrityError: fewer than two classes, labels out of range or of another number than images, an empty
                class or split, splits of different shapes, images that are not uint8 (n, C, H, W).
        """
        classes = len(self.class_names)
        if classes < 2:
            raise IntegrityError(where, f"has {classes} class", allowed="two classes or more")
        for split, images in self.parts.items():
            _check_split(where, split, images)
            _check_labels(where, split, images.targets, self.class_names)
        _check_classes(where, self.train.targets, self.class_names, 2 if self.validation is None else 1)
        shape = tuple(self.train.images.shape[1:])
        for split, images in self.parts.items():
            if (other := tuple(images.images.shape[1:])) != shape:
                raise IntegrityError(where, f"train images are {shape}, {split} images {other}")
        return replace(self, notes=(*self.notes, *_notes_on_shared(self.parts)))

    def split(self, name: str, validation_fraction: float, num_train: int | None, split_seed: int) -> Splits:
        """The three splits, with ``num_train`` training images, class by class.

        The data set's own validation images are taken as they are; where it has none, a part of the training images
        is set aside, class by class.

        Raises:
            ConfigError: more training images are asked for than there are.
        """
        targets = self.train.targets
        set_aside = max(len(self.class_names), round(validation_fraction * len(targets)))
        sizes = [set_aside] if self.validation is None else []
        left = len(targets) - sum(sizes)
        if left < (num_train or len(self.class_names)):
            raise ConfigError(
                "data.num_train" if num_train else "data.validation_fraction",
                f"leaves {left} training images of {len(targets)}",
                allowed=f"num_train of {left} or less" if num_train else "a smaller share",
            )
        rng = generator(split_seed, name, "split")
        chosen = stratified(targets, [*sizes, *([] if num_train is None else [num_train])], rng)
        validation = self._train_images(chosen[0]) if self.validation is None else self.validation
        return Splits(
            name=name,
            class_names=self.class_names,
            train=self._train_images(chosen[len(sizes)]),
            validation=validation,
            test=self.test,
            sha256=self.sha256,
            notes=self.notes,
        )

    @property
    def sha256(self) -> str:
        """A hash of every image and label, whatever is set aside."""
        parts = [part for part in (self.train, self.test, self.validation) if part is not None]
        return content_sha256(*(tensor for part in parts for tensor in (part.images, part.targets)))

    def _train_images(self, index: Tensor) -> Images:
        return Images(self.train.images[index], self.train.targets[index])


def _check_split(where: str, split: str, images: Images) -> None:
    if not len(images.targets) and not len(images.images):
        raise IntegrityError(where, f"the {split} split is empty")
    pixels = images.images
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or not pixels.numel():
        problem = f"the {split} images are {pixels.dtype} {tuple(pixels.shape)}"
        raise IntegrityError(where, problem, allowed="uint8 (n, C, H, W)")
    if len(pixels) != len(images.targets):
        raise IntegrityError(where, f"the {split} split has {len(pixels)} images and {len(images.targets)} labels")


def _check_labels(where: str, split: str, targets: Tensor, class_names: tuple[str, ...]) -> None:
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= len(class_names):
        problem = f"the {split} split has labels {low} .. {high}"
        raise IntegrityError(where, problem, allowed=f"0 .. {len(class_names) - 1}, for {len(class_names)} classes")


def _check_classes(where: str, targets: Tensor, class_names: tuple[str, ...], at_least: int) -> None:
    counts = torch.bincount(targets, minlength=len(class_names))
    if int(counts.min()) < at_least:
        problem = f"class {class_names[int(counts.argmin())]!r} has {int(counts.min())} training images"
        allowed = "two or more: one goes to validation" if at_least > 1 else "one or more"
        raise IntegrityError(where, problem, allowed=allowed)


def _notes_on_shared(parts: dict[str, Images]) -> list[str]:
    """What is counted of images that a split shares, byte for byte, with one that it should be new to."""
    digests = {split: _digests(part.images) for split, part in parts.items()}
    notes = []
    for split, other in (("test", "train"), ("validation", "train"), ("test", "validation")):
        own, known = digests.get(split, []), set(digests.get(other, []))
        if shared := sum(digest in known for digest in own):
            notes.append(f"{shared} of {len(own)} {split} images are also in the {other} split, byte for byte")
    return notes


def _digests(images: Tensor) -> list[bytes]:
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images.numpy()]
