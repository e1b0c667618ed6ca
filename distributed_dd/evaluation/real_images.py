"""The real images that a distilled set was made from, at the place that a person names."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch.utils.data import Dataset, TensorDataset

from distributed_dd.data import DATA_SETS, DataSource
from distributed_dd.errors import ConfigError, IntegrityError
from distributed_dd.evaluation.artefact import load_distilled
from distributed_dd.family import build_member, did_you_mean

SPLITS = ("train", "validation", "test")


def load_real(folder: str | Path, /, split: Literal["train", "validation", "test"] = "test", **places: Any) -> Dataset:
    """The real images that the set in ``folder`` was made from, as the set's networks see them.

    Items are (image (C, H, W), class number). The split is the run's own, so a network trained on
    `load_distilled` and tested on this repeats the report's first row.

    Args:
        places: where the real data lie, as in a configuration's ``data``: ``root="data"`` for published data sets,
            ``path="pets"`` for folders and arrays, which have no place by default.

    Raises:
        ConfigError: no such split or place, or a place must be named.
        MissingInputError: there is no set, or the data are not there.
        IntegrityError: the data are not those that the set was made from.
    """
    if split not in SPLITS:
        raise ConfigError("split", f"unknown {split!r}{did_you_mean(split, SPLITS)}", allowed=", ".join(SPLITS))
    distilled = load_distilled(folder)
    made_from = distilled.manifest["dataset"]
    splits = _real_source(distilled.manifest, places).load()
    if splits.sha256 != made_from["sha256"]:
        problem = f"is not the one the set was made from (SHA-256 {splits.sha256[:16]})"
        allowed = f"{made_from['name']}, SHA-256 {made_from['sha256'][:16]}"
        raise IntegrityError(f"data set {splits.name}", problem, allowed=allowed)
    images = getattr(splits, split)
    return TensorDataset(distilled.preprocessing.apply(images.pixels()), images.targets)


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
