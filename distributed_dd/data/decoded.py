"""Every image of a data set as bytes, checked, before anything is set aside for validation."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
    """Train and test images, uint8 (n, C, H, W) in 0 .. 255, class names in order, remarks for people."""

    train: Images
    test: Images
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

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
            tensors = {
                "train_images": decoded.train.images,
                "train_targets": decoded.train.targets,
                "test_images": decoded.test.images,
                "test_targets": decoded.test.targets,
            }
            return tensors, {"class_names": decoded.class_names, "notes": decoded.notes}

        identity = {"name": name, "files": fingerprint(files, root), "how": how}
        tensors, facts = cached(f"decoding {name}", identity, make, say)
        train, test = (Images(tensors[f"{s}_images"], tensors[f"{s}_targets"]) for s in ("train", "test"))
        return cls(train, test, tuple(facts["class_names"]), tuple(facts["notes"]))

    def checked(self, where: str) -> "Decoded":
        """Itself, with a note on test images that also occur in the train split.

        Raises:
            IntegrityError: fewer than two classes, labels out of range or of another number than images, an empty
                class or split, train and test of different shapes, images that are not uint8 (n, C, H, W).
        """
        classes = len(self.class_names)
        if classes < 2:
            raise IntegrityError(where, f"has {classes} class", allowed="two classes or more")
        for split, images in (("train", self.train), ("test", self.test)):
            _check_split(where, split, images, self.class_names)
        shapes = [tuple(part.images.shape[1:]) for part in (self.train, self.test)]
        if shapes[0] != shapes[1]:
            raise IntegrityError(where, f"train images are {shapes[0]}, test images {shapes[1]}")
        shared = _in_both(self.train.images, self.test.images)
        if not shared:
            return self
        note = f"{shared} of {len(self.test)} test images are also in the train split, byte for byte"
        return replace(self, notes=(*self.notes, note))

    def split(self, name: str, validation_fraction: float, num_train: int | None, split_seed: int) -> Splits:
        """Set a validation part aside, class by class, and keep ``num_train`` of the rest.

        Raises:
            ConfigError: more training images are asked for than there are.
        """
        targets = self.train.targets
        num_validation = max(len(self.class_names), round(validation_fraction * len(targets)))
        left = len(targets) - num_validation
        if left < (num_train or len(self.class_names)):
            raise ConfigError(
                "data.num_train" if num_train else "data.validation_fraction",
                f"leaves {left} training images of {len(targets)}",
                allowed=f"num_train of {left} or less" if num_train else "a smaller share",
            )
        sizes = [num_validation] if num_train is None else [num_validation, num_train]
        sets = stratified(targets, sizes, generator(split_seed, name, "split"))
        parts = [Images(self.train.images[index], targets[index]) for index in (sets[1], sets[0])]
        tensors = (self.train.images, targets, self.test.images, self.test.targets)
        sha256 = content_sha256(*tensors)
        return Splits(
            name=name,
            class_names=self.class_names,
            train=parts[0],
            validation=parts[1],
            test=self.test,
            sha256=sha256,
            notes=self.notes,
        )


def _check_split(where: str, split: str, images: Images, class_names: tuple[str, ...]) -> None:
    classes = len(class_names)
    if not len(images.targets) and not len(images.images):
        raise IntegrityError(where, f"the {split} split is empty")
    pixels = images.images
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or not pixels.numel():
        problem = f"the {split} images are {pixels.dtype} {tuple(pixels.shape)}"
        raise IntegrityError(where, problem, allowed="uint8 (n, C, H, W)")
    if len(pixels) != len(images.targets):
        raise IntegrityError(where, f"the {split} split has {len(pixels)} images and {len(images.targets)} labels")
    low, high = int(images.targets.min()), int(images.targets.max())
    if low < 0 or high >= classes:
        problem = f"the {split} split has labels {low} .. {high}"
        raise IntegrityError(where, problem, allowed=f"0 .. {classes - 1}, for {classes} classes")
    counts = torch.bincount(images.targets, minlength=classes)
    if split == "train" and int(counts.min()) < 2:
        name = class_names[int(counts.argmin())]
        problem = f"class {name!r} has {int(counts.min())} training images"
        raise IntegrityError(where, problem, allowed="two or more: one goes to validation")


def _in_both(train: Tensor, test: Tensor) -> int:
    known = set(_digests(train))
    return sum(digest in known for digest in _digests(test))


def _digests(images: Tensor) -> list[bytes]:
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images.numpy()]
