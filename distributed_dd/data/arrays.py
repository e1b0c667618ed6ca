"""Anybody's arrays: one .npz or .safetensors file."""

from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from torch import Tensor

from distributed_dd.data.archives import Array, described, names_in, read_arrays, whole_labels
from distributed_dd.data.cache import Say, silent
from distributed_dd.data.decoded import Decoded
from distributed_dd.data.published import Sampled
from distributed_dd.data.reading import shown
from distributed_dd.data.splits import Images, Splits, stratified
from distributed_dd.errors import IntegrityError
from distributed_dd.family import setting
from distributed_dd.learning.chance import generator
from distributed_dd.places import displayable

KEYS = (
    "train_images, train_labels, test_images, test_labels, or images, labels with test_fraction; "
    "val_images, val_labels beside either"
)
IMAGES = "uint8 (n, H, W), (n, H, W, C) or (n, C, H, W) with C of 1 or 3"


@dataclass(frozen=True)
class Arrays(Sampled):
    """Your own arrays in one .npz or .safetensors file, split in it or by fraction; MedMNIST's files as they are."""

    path: str = setting("the file", identity=False, folder=True, kw_only=True)
    label: str | None = setting("the data set's name in reports (null: the file's name)", None)
    class_names: tuple[str, ...] = setting("names of classes 0, 1, .. (empty: their numbers)", ())
    test_fraction: float = setting(
        "share set aside for the test, where the file has no test arrays", 0.2, above=0, below=1
    )
    validation_fraction: float = setting(
        "share of the training images set aside for every choice, where there are no val_images", 0.1, above=0, below=1
    )

    @property
    def name(self) -> str:
        """The data set's name in reports."""
        return self.label or displayable(Path(self.path).stem)

    def load(self, say: Say = silent) -> Splits:
        """The splits.

        Raises:
            MissingInputError: no such file. IntegrityError: keys, shapes, dtypes or labels that do not fit.
        """
        return self.splits_of(self._decode().checked(self.path), self.name)

    def splits_there(self) -> list[str]:
        """What the names of arrays begin with, such as ``train_``; the training images come first.

        Raises:
            MissingInputError: no such file. IntegrityError: images without labels, or names that are not known.
        """
        names = names_in(Path(self.path))
        splits = ["train_", "test_"] if "train_images" in names else [""]
        if "val_images" in names or "val_labels" in names:
            splits.append("val_")
        wanted = [f"{split}{kind}" for split in splits for kind in ("images", "labels")]
        if missing := [key for key in wanted if key not in names]:
            raise IntegrityError(self.path, f"has no {missing[0]}, only {shown(names) or 'nothing'}", allowed=KEYS)
        return splits

    def _decode(self) -> Decoded:
        splits = self.splits_there()
        wanted = [f"{split}{kind}" for split in splits for kind in ("images", "labels")]
        arrays = read_arrays(Path(self.path), wanted)
        # A training image of every class at least: a label beyond their number is no class.
        below = max(len(self.class_names), 2, len(numpy.atleast_1d(arrays[wanted[1]])))
        parts = {split: self._part(arrays, split, below) for split in splits}
        num_classes = max(int(part.targets.max()) for part in parts.values()) + 1
        class_names = self.class_names or tuple(str(number) for number in range(num_classes))
        validation = parts.get("val_")
        notes: tuple[str, ...] = ()
        if validation is not None:
            notes = (f"the file's own {len(validation)} validation images are used: validation_fraction says nothing",)
        train, test = self._split_by_fraction(parts[""]) if "" in parts else (parts["train_"], parts["test_"])
        return Decoded(train, test, class_names, notes, validation=validation)

    def _split_by_fraction(self, everything: Images) -> tuple[Images, Images]:
        rng = generator(self.split_seed, self.name, "test")
        test_size = round(self.test_fraction * len(everything))
        test, train = stratified(everything.targets, [test_size], rng)
        chosen = [Images(everything.images[index], everything.targets[index]) for index in (train, test)]
        return chosen[0], chosen[1]

    def _part(self, arrays: dict[str, Array], split: str, below: int) -> Images:
        images = arrays[f"{split}images"]
        if images.dtype != numpy.uint8 or images.ndim not in (3, 4) or not images.size:
            raise IntegrityError(self.path, f"{split}images are {described(images)}", allowed=IMAGES)
        labels = whole_labels(arrays[f"{split}labels"], len(images), below, self.path, f"{split}labels")
        pixels = _channels_first(torch.from_numpy(images), self.path, f"{split}images")
        return Images(pixels, torch.from_numpy(labels))


def _channels_first(images: Tensor, where: str, name: str) -> Tensor:
    if images.ndim == 3:
        return images.unsqueeze(1)
    if images.shape[1] in (1, 3):
        return images
    if images.shape[3] in (1, 3):
        return images.permute(0, 3, 1, 2).contiguous()
    problem = f"{name} are {tuple(images.shape)}, which has no 1 or 3 channels: volumes are no images"
    raise IntegrityError(where, problem, allowed=IMAGES)
