"""The distilled set as a self-describing folder, and its loader."""

from pathlib import Path
from typing import Any, Literal

from safetensors.torch import save
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from distributed_dd.data import DATA_SETS, Fitted, Splits
from distributed_dd.durable import read_json, sha256_of, write_bytes, write_json
from distributed_dd.errors import ConfigError, IntegrityError, MissingInputError
from distributed_dd.family import build_member, did_you_mean
from distributed_dd.outer.environment import versions
from distributed_dd.outer.run_folder import load_tensors

SCHEMA = 1
SPLITS = ("train", "validation", "test")
SET, LAST, MANIFEST, PREVIEW = ("distilled.safetensors", "last_step.safetensors", "manifest.json", "preview.png")
FITTED = ("mean", "forward", "inverse")


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
    manifest = read_json(folder / MANIFEST)
    return DistilledSet(verified(folder, SET, manifest), manifest, labels)


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
    values = {**distilled.manifest["configuration"]["data"], **data}
    splits = build_member(DATA_SETS, values, "data").load()
    if splits.sha256 != distilled.manifest["dataset"]["sha256"]:
        raise IntegrityError(f"data set {splits.name}", "is not the one the set was made from")
    if split not in SPLITS:
        raise ConfigError("split", f"unknown {split!r}{did_you_mean(split, SPLITS)}", allowed=", ".join(SPLITS))
    images = getattr(splits, split)
    return TensorDataset(distilled.preprocessing.apply(images.pixels()), images.targets)


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
    """Write the set, then the manifest: a folder without a manifest holds no set."""
    extra = {f"preprocessing.{name}": t.contiguous() for name, t in fitted.tensors().items()}
    hashes = {}
    for name, tensors in ((SET, {**best, **extra}), (LAST, last)):
        if tensors is None:
            continue
        hashes[name] = write_bytes(folder / name, save({k: t.contiguous() for k, t in tensors.items()}))
    learned = {"learning_rate": float(best["learning_rate"])} if "learning_rate" in best else {}
    write_json(folder / MANIFEST, {"schema": SCHEMA, "sha256": hashes, **learned, **facts})


def load_last_step(folder: Path) -> dict[str, Tensor]:
    """The set as it was after the last outer step, whatever validation preferred."""
    return verified(folder, LAST, read_json(folder / MANIFEST))


def verified(folder: Path, name: str, manifest: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a file that a manifest names.

    Raises:
        MissingInputError: the file is missing. IntegrityError: its SHA-256 is not that of the manifest.
    """
    path = folder / name
    if not path.exists():
        raise MissingInputError(str(path), "is missing though the manifest names it")
    if sha256_of(path) != manifest.get("sha256", {}).get(name):
        raise IntegrityError(str(path), "is not the file that was written (SHA-256 differs)")
    return load_tensors(path)
