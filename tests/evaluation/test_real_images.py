"""`load_real` finds the real images of a set again, wherever a person says that they lie."""

import inspect
from pathlib import Path

import numpy
import pytest
import torch

import distributed_dd
from distributed_dd.data import DATA_SETS
from distributed_dd.data.arrays import Arrays
from distributed_dd.data.digits import Digits
from distributed_dd.data.image_folder import ImageFolder
from distributed_dd.data.mnist import MNIST
from distributed_dd.data.whitening import Standardise
from distributed_dd.errors import ConfigError, IntegrityError, MissingInputError
from distributed_dd.evaluation.artefact import write_artefact
from distributed_dd.family import identity
from tests.references import data_layouts as layouts

SPLITS = ("train", "validation", "test")


def set_of(source, folder):
    """A set of one image per class with the manifest that a run would leave."""
    splits = source.load()
    number = splits.num_classes
    images = torch.zeros(number, *splits.image_shape)
    best = {"images": images, "labels": torch.eye(number), "classes": torch.arange(number)}
    facts = {
        "config": "0" * 64,
        "learning_rate": 0.1,
        "class_names": list(splits.class_names),
        "image_shape": list(splits.image_shape),
        "images_per_class": 1,
        "dataset": {"name": splits.name, "sha256": splits.sha256},
        "configuration": {"data": {"kind": DATA_SETS.kind_of(source), **identity(source)}},
    }
    fitted = Standardise().fit(splits.train.pixels())
    write_artefact(folder, best, None, fitted, facts)
    return splits, fitted


def made(kind, root):
    """A data set of ``kind`` below ``root``, and what `load_real` is told of its place."""
    match kind:
        case "folder":
            layouts.make_folder(root / "pets", splits=(".",))
            return ImageFolder(path=str(root / "pets"), size=8), {"path": str(root / "pets")}
        case "arrays":
            layouts.make_arrays(root / "mine.npz")
            return Arrays(path=str(root / "mine.npz"), num_train=9), {"path": root / "mine.npz"}
        case "mnist":
            layouts.make_mnist(root)
            return MNIST(root=str(root), size=28), {"root": str(root)}
        case _:
            return Digits(), {}


@pytest.mark.parametrize("kind", ["folder", "arrays", "mnist", "digits"])
def test_each_split_is_the_run_s_own_as_its_networks_see_it(kind, tmp_path):
    source, places = made(kind, tmp_path)
    splits, fitted = set_of(source, tmp_path / "set")
    for split in SPLITS:
        real, expected = distributed_dd.load_real(tmp_path / "set", split, **places), getattr(splits, split)
        assert torch.equal(real.tensors[0], fitted.apply(expected.pixels()))
        assert torch.equal(real.tensors[1], expected.targets)
    by_default = distributed_dd.load_real(str(tmp_path / "set"), **places)
    assert len(by_default) == len(splits.test)


@pytest.mark.parametrize("kind", ["folder", "arrays"])
def test_data_that_moved_and_have_another_name_are_split_as_before(kind, tmp_path):
    """The name of a file or folder decides about the split where no label does: catches other images under ``test``."""
    source, places = made(kind, tmp_path)
    splits, fitted = set_of(source, tmp_path / "set")
    place = Path(places["path"])
    moved = place.rename(place.with_name(f"elsewhere{place.suffix}"))
    for split in SPLITS:
        real = distributed_dd.load_real(tmp_path / "set", split, path=str(moved))
        assert torch.equal(real.tensors[0], fitted.apply(getattr(splits, split).pixels()))


def test_a_wrong_place_is_one_error(tmp_path):
    source, _ = made("arrays", tmp_path)
    folder = tmp_path / "set"
    set_of(source, folder)
    with pytest.raises(MissingInputError, match="no such file"):
        distributed_dd.load_real(folder, path=str(tmp_path / "nowhere.npz"))
    with pytest.raises(ConfigError, match=r"data\.path") as caught:
        distributed_dd.load_real(folder)
    assert caught.value.fix == 'load_real(FOLDER, path="..")'
    with pytest.raises(ConfigError, match="did you mean 'path'"):
        distributed_dd.load_real(folder, pat="x")
    with pytest.raises(ConfigError, match="no place of this data set"):  # another split under the same hash otherwise
        distributed_dd.load_real(folder, path=str(tmp_path / "mine.npz"), num_train=3)
    with pytest.raises(ConfigError, match="did you mean 'test'"):
        distributed_dd.load_real(folder, "tets", path=str(tmp_path / "mine.npz"))
    with pytest.raises(MissingInputError, match="no distilled set"):
        distributed_dd.load_real(tmp_path, path=str(tmp_path / "mine.npz"))


def test_other_data_at_that_place_are_refused(tmp_path):
    source, _ = made("arrays", tmp_path)
    splits, _ = set_of(source, tmp_path / "set")
    images, labels = layouts.labelled(3, 6, (9, 9, 3), 7)

    parts = {"train_images": images, "train_labels": labels, "test_images": images[:6], "test_labels": labels[:6]}
    numpy.savez(tmp_path / "other.npz", **parts)
    with pytest.raises(IntegrityError) as caught:
        distributed_dd.load_real(tmp_path / "set", path=str(tmp_path / "other.npz"))
    assert splits.sha256[:16] in caught.value.allowed


def test_a_set_without_a_place_takes_none(tmp_path):
    set_of(Digits(), tmp_path)
    with pytest.raises(ConfigError, match="ships with the package"):
        distributed_dd.load_real(tmp_path, root="data")


def test_the_folder_of_the_set_is_by_position_only():
    """Or data sets with a ``path`` could not be named."""
    (folder, *_) = inspect.signature(distributed_dd.load_real).parameters.values()
    assert folder.kind is inspect.Parameter.POSITIONAL_ONLY
