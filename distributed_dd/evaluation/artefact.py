"""The distilled set as a self-describing folder, and its loader."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from distributed_dd.data import DATA_SETS, DataSource, Fitted, Splits
from distributed_dd.durable import sha256_of, write_bytes
from distributed_dd.errors import ConfigError, IntegrityError, MissingInputError
from distributed_dd.family import build_member, did_you_mean
from distributed_dd.learning.tensor_files import load_tensors, refuse_not_finite, require_shapes
from distributed_dd.outer.environment import versions
from distributed_dd.records import read_record, write_record

SCHEMA = 1
SPLITS = ("train", "validation", "test")
SET, LAST, MANIFEST, PREVIEW = ("distilled.safetensors", "last_step.safetensors", "manifest.json", "preview.png")
FITTED = ("mean", "forward", "inverse")
KIND = "result"
NEEDS: dict[str, Any] = {
    "sha256": dict,
    "class_names": tuple[str, ...],
    "image_shape": tuple[int, ...],
    "images_per_class": int,
    "configuration": dict,
    "dataset": dict,
    "config": str,
}


class DistilledSet(Dataset):
    """A distilled set that any PyTorch training loop can use.

    Items are (image (C, H, W) in network-input space, label): class probabilities (K,), which
    `torch.nn.CrossEntropyLoss` takes as they are, or the class number with ``labels="hard"``.

    Attributes:
        images (n, C, H, W), labels (n, K) logits, classes (n): as distilled.
        learning_rate: as distilled, or that of the recipe where none was.
        preprocessing: `apply` does to real images (n, C, H, W) in [0, 1] what was done for the set; `invert`.
        manifest: method, data set, class names, network, evaluation recipe, versions.
    """

    def __init__(self, tensors: dict[str, Tensor], manifest: dict[str, Any], kind: Literal["soft", "hard"]) -> None:
        self.images, self.labels, self.classes = tensors["images"], tensors["labels"], tensors["classes"]
        learned = tensors.get("learning_rate")
        self.learning_rate = float(manifest["learning_rate"] if learned is None else learned)
        self.preprocessing = Fitted(*(tensors[f"preprocessing.{p}"] for p in FITTED))
        self.manifest = manifest
        if kind not in ("soft", "hard"):
            raise ConfigError("labels", f"unknown {kind!r}", allowed="soft, hard")
        self._targets = self.classes if kind == "hard" else self.labels.softmax(1)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self._targets[index]


def load_distilled(path: str | Path, labels: Literal["soft", "hard"] = "soft") -> DistilledSet:
    """The distilled set in ``path``: a run folder or its ``distilled/`` folder.

    Raises:
        MissingInputError: the folder holds no set. IntegrityError: a file is not what was written.
    """
    folder = Path(path)
    if (folder / "distilled").is_dir():
        folder = folder / "distilled"
    if not (folder / MANIFEST).exists():
        raise MissingInputError(str(folder), "holds no distilled set", allowed="a run folder, or its distilled/ folder")
    manifest = manifest_of(folder)
    tensors = verified(folder, SET, manifest)
    _check(tensors, manifest, str(folder / SET))
    return DistilledSet(tensors, manifest, labels)


def manifest_of(folder: Path, owner: str | None = None) -> dict[str, Any]:
    """The manifest of the result in ``folder``.

    Args:
        owner: digest of the configuration that it must have come from; None: of any.

    Raises:
        MissingInputError: there is none. IntegrityError: it was changed, or belongs to another run.
    """
    return read_record(folder / MANIFEST, KIND, owner=owner, needs=NEEDS, older=lambda values: values["config"])


def _check(tensors: dict[str, Tensor], manifest: dict[str, Any], where: str) -> None:
    """Refuse a set that no network could learn from as its manifest says.

    Raises:
        IntegrityError: shapes that do not fit each other, classes out of range, numbers that are not finite.
    """
    num_classes, shape = len(manifest["class_names"]), tuple(manifest["image_shape"])
    require_shapes(tensors, {"images": (None, *shape), "labels": (None, num_classes), "classes": (None,)}, where)
    num, classes = len(tensors["images"]), tensors["classes"]
    require_shapes(tensors, {"images": (num, *shape), "labels": (num, num_classes), "classes": (num,)}, where)
    if not num or classes.is_floating_point() or int(classes.min()) < 0 or int(classes.max()) >= num_classes:
        raise IntegrityError(where, "its classes do not fit its class names", allowed=f"0 .. {num_classes - 1}")
    if "learning_rate" not in tensors and not isinstance(manifest.get("learning_rate"), float | int):
        raise IntegrityError(where, "has no learning rate, and neither has its manifest", allowed="a number")
    fitted_of(tensors, shape, where)
    refuse_not_finite(tensors, where)


def fitted_of(tensors: dict[str, Tensor], image_shape: tuple[int, ...], where: str) -> Fitted:
    """The preprocessing that is kept among the tensors of a result.

    Raises:
        IntegrityError: a part of it is missing, or does not go with images of this shape.
    """
    try:
        fitted = Fitted(*(tensors[f"preprocessing.{part}"] for part in FITTED))
        for change in (fitted.apply, fitted.invert):
            if change(torch.zeros(1, *image_shape)).shape != (1, *image_shape):
                raise RuntimeError("changes the shape of images")
    except (KeyError, IndexError, RuntimeError, ConfigError) as error:
        raise IntegrityError(where, f"its preprocessing does not fit: {str(error).splitlines()[0]}") from None
    return fitted


def load_real(path: str | Path, split: Literal["train", "validation", "test"] = "test", **data: Any) -> Dataset:
    """The real images that the set in ``path`` was made from, as the set's networks see them.

    Items are (image (C, H, W), class number). The split is the run's own, so a network trained on
    `load_distilled` and tested on this repeats the report's first row.

    Args:
        data: where the real data lie, such as ``root="data"`` or ``path="pets"``.

    Raises:
        MissingInputError: there is no set, or the data are not there. IntegrityError: the data are not those that
            the set was made from.
    """
    distilled = load_distilled(path)
    splits = source_of(distilled.manifest["configuration"].get("data"), data).load()
    if splits.sha256 != distilled.manifest["dataset"]["sha256"]:
        raise IntegrityError(f"data set {splits.name}", "is not the one the set was made from")
    if split not in SPLITS:
        raise ConfigError("split", f"unknown {split!r}{did_you_mean(split, SPLITS)}", allowed=", ".join(SPLITS))
    images = getattr(splits, split)
    return TensorDataset(distilled.preprocessing.apply(images.pixels()), images.targets)


def source_of(recorded: Any, typed: Mapping[str, Any]) -> DataSource:
    """The data set that a record names, at the place that a person names.

    Where data lie and whether they are fetched is never taken from a record, which may be a stranger's.

    Raises:
        ConfigError: the record names no data set, or a place must be typed.
    """
    return build_member(DATA_SETS, at_typed_places(recorded, typed), "data")


def at_typed_places(recorded: Any, typed: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a data set that a record names, without its places, and what a person typed over them.

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


def describe(
    method: str, values: dict[str, Any], splits: Splits, digest: str, shared: dict[str, Any] | None, facts: dict
) -> dict[str, Any]:
    """The manifest's account of a result: all that a stranger needs to use it as it was meant.

    Args:
        values: the configuration, without paths of this machine. digest: of it and the data.
        shared: what it was made from, where there was anything, as its prelude tells.
    """
    return {
        "method": method,
        "dataset": {
            "name": splits.name,
            "sha256": splits.sha256,
            "source": values["data"],
            "notes": splits.notes,
        },
        "images_per_class": values["images_per_class"],
        "class_names": list(splits.class_names),
        "image_shape": list(splits.image_shape),
        "preprocessing": {
            **values["preprocessing"],
            "apply": "z = (x - mean) * forward; a matrix product if forward is (d, d)",
            "invert": "x = z * inverse + mean, likewise",
            "pixels": "x in [0, 1]",
        },
        "network": values["network"],
        "evaluation": {**values["evaluate"], "learning_rate": "the distilled one"},
        "experts": shared,
        "seed": values["seed"],
        "config": digest,
        "outer_step": facts["best_step"],
        "validation_accuracy": facts["best_accuracy"],
        "distillation": facts,
        "versions": versions(),
        "configuration": values,
    }


def write_artefact(
    folder: Path,
    best: dict[str, Tensor],
    last: dict[str, Tensor] | None,
    fitted: Fitted,
    facts: dict[str, Any],
) -> None:
    """Write the set, then the manifest: a folder without a manifest holds no set.

    Raises:
        IntegrityError: a number is not finite; nothing is written.
    """
    for learned_tensors in (best, last or {}):
        refuse_not_finite(learned_tensors, str(folder))
    extra = {f"preprocessing.{name}": t.contiguous() for name, t in fitted.tensors().items()}
    hashes = {}
    for name, tensors in ((SET, {**best, **extra}), (LAST, last)):
        if tensors is None:
            continue
        hashes[name] = write_bytes(folder / name, save({k: t.contiguous() for k, t in tensors.items()}))
    learned = {"learning_rate": float(best["learning_rate"])} if "learning_rate" in best else {}
    write_record(folder / MANIFEST, KIND, facts["config"], {"schema": SCHEMA, "sha256": hashes, **learned, **facts})


def load_last_step(folder: Path) -> dict[str, Tensor]:
    """The set as it was after the last outer step, whatever validation preferred."""
    return verified(folder, LAST, manifest_of(folder))


def verified(folder: Path, name: str, manifest: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a file that a manifest names.

    Raises:
        MissingInputError: the file is missing. IntegrityError: its SHA-256 is not that of the manifest.
    """
    path = folder / name
    try:
        sha256 = sha256_of(path)
    except MissingInputError as error:
        raise MissingInputError(error.where, error.problem, fix=again(folder)) from None
    if sha256 != manifest["sha256"].get(name):
        raise IntegrityError(str(path), "is not the file that was written (SHA-256 differs)", fix=again(folder))
    return load_tensors(path)


def again(folder: Path) -> str:
    """What helps where a result is damaged."""
    return (
        f"restore it; or delete {folder} and run the same command, which makes it again from the checkpoint beside it, "
        "where that is still there"
    )
