"""A set as the Hugging Face hub keeps data: parquet that ``datasets.load_dataset`` reads, with a card that says all."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor

from distributed_dd.durable import sha256_of, write_bytes, write_text
from distributed_dd.errors import ConfigError
from distributed_dd.evaluation.distilled_set import DistilledSet
from distributed_dd.evaluation.exporting import pixels_of
from distributed_dd.evaluation.hub_card import card_text, size_category
from distributed_dd.evaluation.published_sets import columns as names
from distributed_dd.evaluation.published_sets.coded_labels import Coded, coded, cost, decoded
from distributed_dd.family import setting
from distributed_dd.learning.classes import hard_logits

DATA, CARD, PREPROCESSING = "data/train-00000-of-00001.parquet", "README.md", "preprocessing.safetensors"


@dataclass(frozen=True)
class HubExport:
    """How a set goes to the hub: ``hub.*`` on the command line."""

    labels: Literal["soft", "hard", "top_k"] = setting("soft as kept, classes alone, or the likeliest classes", "soft")
    top_k: int = setting("with labels=top_k: how many classes of each image", 5, at_least=1, at_most=10_000)
    bits: Literal[8, 16] = setting("with labels=top_k: bits of a probability", 8)
    license: str = setting("licence of the source data, as the hub writes it, such as mit", "unknown")


def as_hub(distilled: DistilledSet, report: dict[str, Any] | None, settings: HubExport, folder: Path) -> None:
    """Write the table, the preprocessing and the card.

    Columns: ``image`` (PNG, for people), ``label``, ``values`` (float32 (C, H, W), exactly as networks see them), and
    ``soft_label`` (K logits) where labels say more than a class; with top-k labels two columns in its place.

    Raises:
        ConfigError: the library ``datasets`` is not installed, or more classes are asked for than there are.
    """
    datasets = _library()
    class_names = list(distilled.manifest["class_names"])
    rows, features = _columns(datasets, distilled, class_names)
    own: dict[str, Any] = {"values": "seen", "learning_rate": distilled.learning_rate}
    lost: dict[str, float] | None = None
    num_label_bytes = distilled.labels.nbytes
    if settings.labels == "top_k":
        if settings.top_k > len(class_names):
            raise ConfigError("hub.top_k", f"is {settings.top_k}", allowed=f"at most {len(class_names)} classes")
        few = coded(distilled.labels, settings.top_k, settings.bits)
        lost = cost(distilled.labels, decoded(few, len(class_names)))
        num_label_bytes, own["coded"] = few.num_bytes, {"bits": settings.bits}
        _add_coded(datasets, few, rows, features)
    elif settings.labels == "soft" and not torch.equal(
        distilled.labels, hard_logits(distilled.targets, len(class_names))
    ):
        own["soft_label"] = "logits"
        rows[names.SOFT] = distilled.labels.numpy()
        features[names.SOFT] = datasets.List(datasets.Value("float32"), length=len(class_names))
    else:
        num_label_bytes = len(distilled) * (1 if len(class_names) <= 2**8 else 2)
    table = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    sha256 = {DATA: write_bytes(folder / DATA, _as_parquet(table, own))}
    parts = {name: part.contiguous() for name, part in distilled.preprocessing.tensors().items()}
    sha256[PREPROCESSING] = write_bytes(folder / PREPROCESSING, save(parts))
    sizes = {"images": distilled.images.nbytes // len(class_names), "labels": num_label_bytes // len(class_names)}
    text = card_text(
        manifest=distilled.manifest,
        report=report,
        sha256={name: sha256_of(folder / name) for name in sha256},
        sizes=sizes,
        learning_rate=distilled.learning_rate,
        columns=list(rows),
        lost=lost,
    )
    write_text(folder / CARD, f"---\n{_front_matter(table, distilled, settings)}---\n\n{text}")


def _library() -> Any:
    try:
        import datasets
    except ImportError:
        problem = "hub needs the library datasets, which is not installed"
        raise ConfigError("--as", problem, fix="pip install 'datasets>=4'") from None
    return datasets


def _columns(datasets: Any, distilled: DistilledSet, class_names: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    pictures = [{"bytes": _png(image), "path": None} for image in pixels_of(distilled)]
    rows: dict[str, Any] = {
        names.IMAGE: pictures,
        names.LABEL: distilled.targets.tolist(),
        names.VALUES: list(distilled.images.numpy()),
    }
    features = {
        names.IMAGE: datasets.Image(),
        names.LABEL: datasets.ClassLabel(names=class_names),
        names.VALUES: datasets.Array3D(shape=tuple(distilled.images.shape[1:]), dtype="float32"),
    }
    return rows, features


def _add_coded(datasets: Any, few: Coded, rows: dict[str, Any], features: dict[str, Any]) -> None:
    of_classes = "uint8" if int(few.classes.max()) < 2**8 else "uint16"
    kinds = ((names.TOP_CLASSES, few.classes, of_classes), (names.TOP_PROBABILITIES, few.levels, f"uint{few.bits}"))
    for name, values, kind in kinds:
        rows[name] = values.tolist()
        features[name] = datasets.List(datasets.Value(kind), length=values.shape[1])


def _as_parquet(table: Any, own: dict[str, Any]) -> bytes:
    """The table, with what its numbers are among its metadata."""
    from pyarrow import parquet

    content = io.BytesIO()
    arrow = table.data.table.combine_chunks()
    metadata = {**(arrow.schema.metadata or {}), names.OWN: json.dumps(own).encode()}
    parquet.write_table(arrow.replace_schema_metadata(metadata), content)
    return content.getvalue()


def _front_matter(table: Any, distilled: DistilledSet, settings: HubExport) -> str:
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    about = DatasetCardData(
        license=settings.license,
        task_categories=["image-classification"],
        size_categories=[size_category(len(distilled))],
        tags=["dataset-distillation", "synthetic"],
        pretty_name=f"{distilled.manifest['dataset']['name']}, distilled",
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}],
    )
    DatasetInfosDict({"default": table.info}).to_dataset_card_data(about)
    text: str = about.to_yaml()
    return text.rstrip("\n") + "\n"


def _png(image: Tensor) -> bytes:
    from torchvision.transforms.v2.functional import to_pil_image

    content = io.BytesIO()
    to_pil_image(image).save(content, "PNG")
    return content.getvalue()
