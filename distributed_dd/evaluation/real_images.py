"""Real images as a data set of PyTorch: those that a distilled set was made from, at the place that a person names."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import TensorDataset

from distributed_dd.data import DATA_SETS, DataSource, Fitted, Splits
from distributed_dd.errors import ConfigError, IntegrityError
from distributed_dd.evaluation.artefact import load_distilled
from distributed_dd.family import build_member, did_you_mean

SPLITS = ("train", "validation", "test")
Transform = Callable[[Tensor], Any]


class RealSet(TensorDataset):
    """One split of a real data set; items are (image (C, H, W), class number).

    Attributes:
        tensors: the images (n, C, H, W) and their class numbers (n,).
        classes, class_to_idx, targets, transform: as torchvision's data sets have them: class names in order, their
            numbers, the class number (n,) of every image, and what is applied to the image of each item.
        preprocessing: what made these images of pixels; None: they are pixels, in [0, 1].
    """

    def __init__(
        self, splits: Splits, split: str, preprocessing: Fitted | None = None, transform: Transform | None = None
    ) -> None:
        check_split(split)
        images = getattr(splits, split)
        pixels = images.pixels()
        super().__init__(pixels if preprocessing is None else preprocessing.apply(pixels), images.targets)
        self.classes = list(splits.class_names)
        self.class_to_idx = {name: number for number, name in enumerate(self.classes)}
        self.targets: Tensor = images.targets
        self.preprocessing, self.transform = preprocessing, transform
        self._called = f"{splits.name}, {split}"

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        image, number = super().__getitem__(index)
        return image if self.transform is None else self.transform(image), number

    def __repr__(self) -> str:
        shape = " × ".join(map(str, self.tensors[0].shape[1:]))
        seen = "pixels in [0, 1]" if self.preprocessing is None else "as networks see them"
        return f"RealSet({self._called}, {len(self)} images of {shape}, {len(self.classes)} classes, {seen})"


def check_split(split: str) -> None:
    """Refuse what is no split, before anything is read.

    Raises:
        ConfigError: it is none.
    """
    if split not in SPLITS:
        raise ConfigError("split", f"unknown {split!r}{did_you_mean(split, SPLITS)}", allowed=", ".join(SPLITS))


def real_images_of(
    folder: str | Path,
    split: str,
    places: Mapping[str, Any],
    natural: bool = False,
    transform: Transform | None = None,
) -> RealSet:
    """The real images that the set in ``folder`` was made from, in the run's own split.

    Args:
        places: where the real data lie, as in a configuration's ``data``.
        natural: pixels in [0, 1]; otherwise as the set's networks see them.

    Raises:
        ConfigError: no such split or place, or a place must be named.
        MissingInputError: there is no set, or the data are not there.
        IntegrityError: the data are not those that the set was made from.
    """
    check_split(split)
    distilled = load_distilled(folder)
    made_from = distilled.manifest["dataset"]
    splits = _real_source(distilled.manifest, places).load()
    if splits.sha256 != made_from["sha256"]:
        problem = f"is not the one the set was made from (SHA-256 {splits.sha256[:16]})"
        allowed = f"{made_from['name']}, SHA-256 {made_from['sha256'][:16]}"
        raise IntegrityError(f"data set {splits.name}", problem, allowed=allowed)
    return RealSet(splits, split, None if natural else distilled.preprocessing, transform)


def _real_source(manifest: Mapping[str, Any], places: Mapping[str, Any]) -> DataSource:
    """The data set that a set was made from, at ``places``; a moved one keeps its name, on which its splits depend."""
    recorded = manifest["configuration"].get("data")
    values = at_typed_places(recorded, {})
    if (cls := DATA_SETS.members.get(str(values.get("kind")))) is not None:
        fields = {field.name: field for field in dataclasses.fields(cls)}
        _check_places(fields, _place_fields(cls), places)
        if "label" in fields and values.get("label") is None:
            values["label"] = manifest["dataset"].get("name")
    typed = {key: os.fspath(place) if isinstance(place, os.PathLike) else place for key, place in places.items()}
    return build_member(DATA_SETS, {**values, **typed}, "data")


def _check_places(fields: Mapping[str, Any], known: Sequence[str], places: Mapping[str, Any]) -> None:
    """Refuse what is no place, which would make another data set of it, and ask for a place that has no default."""
    if unknown := [key for key in places if key not in known]:
        problem = f"is no place of this data set{did_you_mean(unknown[0], known)}"
        allowed = ", ".join(known) or "none: it ships with the package"
        raise ConfigError(f"data.{unknown[0]}", problem, allowed=allowed)
    for key in known:
        if key not in places and fields[key].default is dataclasses.MISSING:
            problem = f"missing: {fields[key].metadata['meaning']}"
            raise ConfigError(f"data.{key}", problem, fix=f'load_real(FOLDER, {key}="..")')


def at_typed_places(recorded: Any, typed: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a data set that a record names, without its places, and what a person typed over them.

    Where data lie and whether they are fetched is never taken from a record, which may be a stranger's.

    Raises:
        ConfigError: the record names no data set.
    """
    values = {"kind": recorded} if isinstance(recorded, str) else recorded
    if not isinstance(values, Mapping):
        raise ConfigError("data", f"the record names no data set: {values!r}")
    cls = DATA_SETS.members.get(str(values.get("kind")))
    places = () if cls is None else _place_fields(cls)
    return {**{key: value for key, value in values.items() if key not in places}, **typed}


def places_of(source: DataSource) -> dict[str, Any]:
    """Where a data set lies, by field; not whether it is fetched."""
    return {name: getattr(source, name) for name in _place_fields(type(source)) if name != "download"}


def _place_fields(cls: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(cls) if not field.metadata.get("identity", True)]
