"""Anybody's arrays: one .npz or .safetensors file."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from distributed_dd.data.cache import Say, silent
from distributed_dd.data.decoded import Decoded
from distributed_dd.data.published import Sampled
from distributed_dd.data.splits import Images, Splits, stratified
from distributed_dd.errors import IntegrityError, MissingInputError
from distributed_dd.family import require, setting
from distributed_dd.learning.chance import generator

KEYS = "train_images, train_labels, test_images, test_labels; or images, labels with test_fraction"
IMAGES = "uint8 (n, H, W), (n, H, W, C) or (n, C, H, W) with C of 1 or 3"


@dataclass(frozen=True)
class Arrays(Sampled):
    """Your own arrays in one .npz or .safetensors file, split in it or by fraction."""

    path: str = setting("the file", identity=False, kw_only=True)
    label: str | None = setting("the data set's name in reports (null: the file's name)", None)
    class_names: tuple[str, ...] = setting("names of classes 0, 1, .. (empty: their numbers)", ())
    test_fraction: float = setting("share set aside for the test, where the file has no test arrays", 0.2)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.test_fraction < 1, "test_fraction", f"got {self.test_fraction}", "between 0 and 1")

    @property
    def name(self) -> str:
        """The data set's name in reports."""
        return self.label or Path(self.path).stem

    def load(self, say: Say = silent) -> Splits:
        """The splits.

        Raises:
            MissingInputError: no such file. IntegrityError: keys, shapes, dtypes or labels that do not fit.
        """
        return self.splits_of(self._decode().checked(self.path), self.name)

    def _decode(self) -> Decoded:
        arrays = _read(Path(self.path))
        if "train_images" in arrays:
            train, test = (self._part(arrays, f"{split}_") for split in ("train", "test"))
        else:
            everything = self._part(arrays, "")
            rng = generator(self.split_seed, self.name, "test")
            test_size = round(self.test_fraction * len(everything))
            chosen = stratified(everything.targets, [test_size], rng)
            test, train = (Images(everything.images[index], everything.targets[index]) for index in chosen)
        num_classes = int(max(train.targets.max(), test.targets.max())) + 1
        names = self.class_names or tuple(str(number) for number in range(num_classes))
        return Decoded(train, test, names)

    def _part(self, arrays: dict[str, Tensor], prefix: str) -> Images:
        missing = [key for key in (f"{prefix}images", f"{prefix}labels") if key not in arrays]
        if missing:
            raise IntegrityError(self.path, f"has no {missing[0]}, only {', '.join(arrays)}", allowed=KEYS)
        images, labels = arrays[f"{prefix}images"], arrays[f"{prefix}labels"]
        if images.dtype != torch.uint8 or images.ndim not in (3, 4) or not len(images):
            problem = f"{prefix}images are {images.dtype} {tuple(images.shape)}"
            raise IntegrityError(self.path, problem, allowed=IMAGES)
        if labels.dtype.is_floating_point or labels.shape != (len(images),):
            problem = f"{prefix}labels are {labels.dtype} {tuple(labels.shape)}"
            raise IntegrityError(self.path, problem, allowed=f"whole numbers ({len(images)},)")
        if int(labels.min()) < 0:
            raise IntegrityError(self.path, f"{prefix}labels go down to {int(labels.min())}", allowed="0 or more")
        return Images(_channels_first(images, self.path), labels.long())


def _channels_first(images: Tensor, where: str) -> Tensor:
    if images.ndim == 3:
        return images.unsqueeze(1)
    if images.shape[1] in (1, 3):
        return images
    if images.shape[3] in (1, 3):
        return images.permute(0, 3, 1, 2).contiguous()
    raise IntegrityError(where, f"images are {tuple(images.shape)}", allowed=IMAGES)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise MissingInputError(str(path.resolve()), "there is no such file", allowed=KEYS)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with numpy.load(path, allow_pickle=False) as archive:  # a pickle could run code
            return {key: torch.from_numpy(archive[key]) for key in archive.files}
    except (OSError, ValueError, TypeError, zipfile.BadZipFile, SafetensorError, AttributeError) as error:
        problem = f"cannot be read as {path.suffix}: {error}"
        raise IntegrityError(str(path), problem, allowed=".npz without objects, or .safetensors") from None
