"""The distilled set as a self-describing folder, and its loader."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from distributed_dd.data import Fitted, Splits
from distributed_dd.durable import RESTORE, sha256_of, write_bytes
from distributed_dd.errors import ConfigError, IntegrityError, MissingInputError
from distributed_dd.evaluation.distilled_set import FORM, STORED, DistilledSet, LabelKind, below
from distributed_dd.family import build_member
from distributed_dd.learning.set_forms import SET_FORMS, Codec
from distributed_dd.learning.tensor_files import load_tensors, refuse_not_finite, require_shapes
from distributed_dd.outer.environment import versions
from distributed_dd.records import read_record, write_record

SCHEMA = 1
SET, LAST, MANIFEST, PREVIEW = ("distilled.safetensors", "last_step.safetensors", "manifest.json", "preview.png")
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


def load_distilled(
    path: str | Path, labels: LabelKind = "soft", *, transform: Callable[[Tensor], Any] | None = None
) -> DistilledSet:
    """The distilled set in ``path``: a run folder or its ``distilled/`` folder.

    Its images are as networks see them, which its ``preprocessing`` made of pixels: they are trained on as they are,
    and real images go through ``preprocessing.apply`` first, as `load_real` does.

    Args:
        labels: ``soft``: class probabilities (K,). ``hard``: class numbers. ``targets``: what a regression learned.
        transform: applied to the image (C, H, W) of each item, such as an augmentation.

    Raises:
        ConfigError: the set has no labels of this kind.
        MissingInputError: the folder holds no set.
        IntegrityError: a file is not what was written.
    """
    folder = Path(path)
    if (folder / "distilled").is_dir():
        folder = folder / "distilled"
    if not (folder / MANIFEST).exists():
        raise MissingInputError(str(folder), "holds no distilled set", allowed="a run folder, or its distilled/ folder")
    manifest = manifest_of(folder)
    tensors, codec = _decoded(verified(folder, SET, manifest), manifest, str(folder / SET))
    _check(tensors, manifest, str(folder / SET))
    return DistilledSet(tensors, manifest, labels, codec, transform)


def manifest_of(folder: Path, owner: str | None = None) -> dict[str, Any]:
    """The manifest of the result in ``folder``.

    Args:
        owner: digest of the configuration that it must have come from; None: of any.

    Raises:
        MissingInputError: there is none. IntegrityError: it was changed, or belongs to another run.
    """
    return read_record(folder / MANIFEST, KIND, owner=owner, needs=NEEDS, older=lambda values: values["config"])


def kept_in_form(rows: Tensor, codec: Codec) -> dict[str, Tensor]:
    """What an artefact keeps of learned rows in place of images, by its names."""
    own = {f"{STORED}{name}": tensor for name, tensor in codec.packed(rows).items()}
    return own | {f"{FORM}{name}": tensor for name, tensor in codec.tensors().items()}


def _decoded(
    tensors: dict[str, Tensor], manifest: dict[str, Any], where: str
) -> tuple[dict[str, Tensor], Codec | None]:
    """The tensors with the images that are kept in the form that the manifest says; None: as they are.

    Raises:
        IntegrityError: what is kept does not fit the form, or numbers in it are not finite.
    """
    if "form" not in manifest:
        return tensors, None
    refuse_not_finite(tensors, where)
    channels, height, width = manifest["image_shape"]
    try:
        form = build_member(SET_FORMS, manifest["form"]["settings"], "form")
        form.check((channels, height, width))
        codec: Codec = form.codec((channels, height, width), below(FORM, tensors))
        images = codec.opened(below(STORED, tensors))
    except (ConfigError, KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        problem = f"its images do not fit their form: {str(error).splitlines()[0]}"
        raise IntegrityError(where, problem, fix=RESTORE) from None
    return {**tensors, "images": images}, codec


def _check(tensors: dict[str, Tensor], manifest: dict[str, Any], where: str) -> None:
    """Refuse a set that no network could learn from as its manifest says.

    Raises:
        IntegrityError: shapes that do not fit each other, classes out of range, numbers that are not finite.
    """
    num_classes, shape = len(manifest["class_names"]), tuple(manifest["image_shape"])
    require_shapes(tensors, {"images": (None, *shape), "labels": (None, num_classes), "classes": (None,)}, where)
    num, classes = len(tensors["images"]), tensors["classes"]
    shapes: dict[str, tuple[int | None, ...]] = {
        "images": (num, *shape),
        "labels": (num, num_classes),
        "classes": (num,),
    }
    optional: dict[str, tuple[int | None, ...]] = {"targets": (num, num_classes), "raw_step_rates": (None,)}
    require_shapes(tensors, shapes | {name: shape for name, shape in optional.items() if name in tensors}, where)
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
        fitted = Fitted.of(tensors, "preprocessing.")
        for change in (fitted.apply, fitted.invert):
            if change(torch.zeros(1, *image_shape)).shape != (1, *image_shape):
                raise RuntimeError("changes the shape of images")
    except (KeyError, IndexError, RuntimeError, ConfigError) as error:
        raise IntegrityError(where, f"its preprocessing does not fit: {str(error).splitlines()[0]}") from None
    return fitted


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
            "apply": "z = (x - mean) * forward; a matrix product if forward is (d, d)" + _through_units(values),
            "invert": "x = z * inverse + mean, likewise" + _of_average(values),
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


def _through_units(values: dict[str, Any]) -> str:
    """What is done with each image on the way, where the preprocessing does such a thing."""
    if values["preprocessing"].get("kind") != "regularised_zca":
        return ""
    return "; with u in place of x - mean: y = (x - mean) * scale, c = y less its own mean, u = c over its own norm"


def _of_average(values: dict[str, Any]) -> str:
    """What `invert` cannot know, where that is so."""
    of_units = values["preprocessing"].get("kind") == "regularised_zca"
    return "; of average brightness and contrast, as an image's own are not kept" if of_units else ""


def write_artefact(
    folder: Path,
    best: dict[str, Tensor],
    last: dict[str, Tensor] | None,
    fitted: Fitted,
    facts: dict[str, Any],
) -> None:
    """Write the set, then the manifest: a folder without a manifest holds no set.

    Of images in a form that is kept which `kept_in_form` gave, and the images are not.

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
        in_form = any(key.startswith(STORED) for key in tensors)
        kept = {key: t.contiguous() for key, t in tensors.items() if not (in_form and key == "images")}
        hashes[name] = write_bytes(folder / name, save(kept))
    learned = {"learning_rate": float(best["learning_rate"])} if "learning_rate" in best else {}
    write_record(folder / MANIFEST, KIND, facts["config"], {"schema": SCHEMA, "sha256": hashes, **learned, **facts})


def load_last_step(folder: Path) -> dict[str, Tensor]:
    """The set as it was after the last outer step, whatever validation preferred."""
    manifest = manifest_of(folder)
    return _decoded(verified(folder, LAST, manifest), manifest, str(folder / LAST))[0]


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
