"""Sets as the Hugging Face hub keeps them: parquet files, or a folder of the ``datasets`` library on a disk."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distributed_dd.data.confined import read_confined
from distributed_dd.data.reading import read_text, shown
from distributed_dd.errors import IntegrityError, MissingInputError
from distributed_dd.evaluation.published_sets.coded_labels import Coded, decoded
from distributed_dd.evaluation.published_sets.columns import FACTS, IMAGE, LABEL, OFFSETS, SOFT, VALUES
from distributed_dd.evaluation.published_sets.foreign_set import ForeignSet, Wanted, as_numbers, channels_first
from distributed_dd.evaluation.published_sets.picture_folders import as_bytes

WORDS = "parquet files (also below data/), or a folder of datasets' save_to_disk"
COLUMNS = "image (pictures or lists of numbers), label, and soft_label where there are such"
STATE, SPLITS = "state.json", "dataset_dict.json"
READER = "distributed_dd.evaluation.published_sets.columnar"


@dataclass(frozen=True)
class _Part:
    """What one file holds: tensors by column, and what it says of itself."""

    path: Path
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def holds(source: Path) -> bool:
    """Whether it is a parquet or arrow file, or a folder with such."""
    return bool(_files(source))


def read(source: Path, wanted: Wanted) -> ForeignSet:
    """The rows of the train split, in order.

    Raises:
        MissingInputError: no file is there. IntegrityError: columns that are not those of labelled images, or content
            that is damaged, nested without end or larger than its file should be.
    """
    files, note = _of_train(_files(source), source)
    parts = [_part(file) for file in files]
    names = _same([tuple(part.facts["class_names"]) for part in parts], source, "class names")
    own: dict[str, Any] = _same([part.facts["own"] for part in parts], source, "descriptions")
    images, notes = _images(parts, wanted, str(source))
    seen = _joined([part.tensors.get(VALUES) for part in parts], source, VALUES)
    seen = seen if seen is None else channels_first(as_numbers(seen, str(source), VALUES), str(source))
    classes = torch.cat([part.tensors[LABEL] for part in parts])
    labels = _joined([part.tensors.get(SOFT) for part in parts], source, SOFT)
    if labels is not None and (labels.ndim != 2 or labels.shape[1] != wanted.num_classes):
        problem = f"{SOFT} is {tuple(labels.shape)}"
        raise IntegrityError(str(source), problem, allowed=f"({len(classes)}, {wanted.num_classes})")
    kind = own.get("soft_label")
    if labels is None and "coded" in own:
        coded = Coded.of_columns([part.tensors for part in parts], own["coded"], str(source))
        labels, kind = decoded(coded, wanted.num_classes), "logits"
        notes = (*notes, f"labels are the {coded.classes.shape[1]} likeliest classes in {coded.bits} bits")
    rate = own.get("learning_rate")
    return ForeignSet(
        where=str(source),
        labels_at=str(source),
        files=files,
        images=images,
        seen=seen,
        values="seen" if seen is not None and own.get("values") == "seen" else None,
        classes=classes,
        labels=None if labels is None else as_numbers(labels, str(source), SOFT),
        label_kind=kind if kind in ("logits", "probabilities") else None,
        class_names=names,
        learning_rate=float(rate) if isinstance(rate, int | float) and 0 < rate < float("inf") else None,
        notes=(*notes, *note),
    )


def _files(source: Path) -> list[Path]:
    """Parquet files of a folder and of the folders in it; else the arrow files that a saved data set lists."""
    if not source.is_dir():
        return [source] if source.suffix.lower() in (".parquet", ".arrow") else []
    if (source / SPLITS).exists():
        return [file for folder in sorted(source.iterdir()) if folder.is_dir() for file in _files(folder)]
    if (source / STATE).exists():
        return _listed(source)
    return sorted([*source.glob("*.parquet"), *source.glob("*/*.parquet")])


def _listed(folder: Path) -> list[Path]:
    """The arrow files that ``state.json`` names, none of them outside the folder."""
    try:
        names = [entry["filename"] for entry in json.loads(read_text(folder / STATE))["_data_files"]]
        files = [folder / Path(name).name for name in names]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise IntegrityError(str(folder / STATE), "is no state.json of datasets' save_to_disk") from None
    if missing := [file for file in files if not file.is_file()]:
        raise MissingInputError(str(missing[0]), f"is missing, and {STATE} names it")
    return files


def _of_train(files: Sequence[Path], source: Path) -> tuple[list[Path], tuple[str, ...]]:
    """The files of the train split, where files or folders are named by splits; and a line that says so."""

    def is_train(file: Path) -> bool:
        inside = file.relative_to(source).parts if source.is_dir() else (file.name,)
        return any(part.lower().startswith("train") for part in inside)

    train = [file for file in files if is_train(file)]
    if not train or len(train) == len(files):
        return list(files), ()
    return train, (f"of {len(files)} files the {len(train)} of the train split are taken",)


def _part(path: Path) -> _Part:
    """One file, read in a process of its own."""
    tensors = read_confined(READER, path, "cannot be read as a table", allowed=COLUMNS)
    facts = json.loads(bytes(tensors.pop(FACTS).tolist()))
    if problem := facts.get("problem"):
        columns = shown(facts["columns"]) or "none"
        raise IntegrityError(str(path), f"{problem}; its columns: {columns}", allowed=COLUMNS)
    return _Part(path, tensors, facts)


def _images(parts: Sequence[_Part], wanted: Wanted, where: str) -> tuple[Tensor, tuple[str, ...]]:
    """Bytes or numbers (n, C, H, W), and remarks."""
    if all(OFFSETS in part.tensors for part in parts):
        with tempfile.TemporaryDirectory() as folder:
            files: list[Path] = []
            for part in parts:
                content, ends = part.tensors[IMAGE].numpy(), part.tensors[OFFSETS].tolist()
                for begin, end in pairwise(ends):
                    files.append(Path(folder) / f"row {len(files)}")
                    files[-1].write_bytes(content[begin:end].tobytes())
            try:
                return as_bytes(files, wanted, where)
            except IntegrityError as error:
                problem = error.problem.replace(f"{folder}/", "")
                raise IntegrityError(where, problem, allowed=error.allowed, fix=error.fix) from None
    images = _joined([part.tensors[IMAGE] for part in parts], Path(where), IMAGE)
    assert images is not None
    if images.ndim == 2 and wanted.image_shape[0] == 1 and images.shape[1] == wanted.image_shape[1] ** 2:
        images = images.view(-1, *wanted.image_shape)
    return channels_first(as_numbers(images, where, IMAGE), where), ()


def _joined(tensors: Sequence[Tensor | None], where: Path, what: str) -> Tensor | None:
    """One tensor of the rows of all files; None where no file has the column."""
    present = [tensor for tensor in tensors if tensor is not None]
    if not present:
        return None
    kinds = {(tensor.dtype, tuple(tensor.shape[1:])) for tensor in present}
    if len(present) < len(tensors) or len(kinds) > 1:
        raise IntegrityError(str(where), f"its files differ in {what}")
    return torch.cat(present)


def _same(values: Sequence[Any], where: Path, what: str) -> Any:
    if any(value != values[0] for value in values):
        raise IntegrityError(str(where), f"its files differ in their {what}")
    return values[0]
