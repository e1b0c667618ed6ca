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


@pytest.mark.parametrize("kind", DATA_SETS.members)
def test_a_data_set_by_its_kind_is_pixels_with_what_torchvision_users_expect(kind, tmp_path, monkeypatch):
    source = layouts.source_of(kind, tmp_path, monkeypatch)
    splits = source.load()
    named = {"root": tmp_path} if hasattr(source, "root") else {}
    settings = {"path": Path(source.path)} if hasattr(source, "path") else named
    for split in SPLITS:
        real, expected = distributed_dd.load_real(kind, split, **settings), getattr(splits, split)
        assert torch.equal(real.tensors[0], expected.pixels()) and torch.equal(real.targets, expected.targets)
        image, number = real[1]
        assert torch.equal(image, real.tensors[0][1]) and number == expected.targets[1]
    assert real.classes == list(splits.class_names)
    assert [real.class_to_idx[name] for name in real.classes] == list(range(splits.num_classes))
    assert real.preprocessing is None and repr(real).endswith("pixels in [0, 1])")


def test_of_a_configuration_they_are_as_its_networks_see_them_or_natural(tiny_yaml, finished):
    """As of its result: catches another split or statistics than the run's own."""
    seen = distributed_dd.load_real(tiny_yaml)
    of_result = distributed_dd.load_real(finished)
    assert torch.equal(seen.tensors[0], of_result.tensors[0]) and torch.equal(seen.targets, of_result.targets)
    natural = distributed_dd.load_real(tiny_yaml, natural=True)
    assert torch.equal(natural.tensors[0], Digits().load().test.pixels())
    assert torch.equal(distributed_dd.load_real(finished, natural=True).tensors[0], natural.tensors[0])
    assert torch.allclose(seen.preprocessing.invert(seen.tensors[0]), natural.tensors[0], atol=1e-5)
    assert repr(seen) == "RealSet(digits, test, 540 images of 1 × 8 × 8, 10 classes, as networks see them)"
    fewer = distributed_dd.load_real(tiny_yaml, "train", num_validation=300)
    assert len(fewer) == len(distributed_dd.load_real(tiny_yaml, "train")) + 257 - 300


def test_a_transform_is_applied_to_each_image(finished):
    plain = distributed_dd.load_real(finished)
    for what in (finished, "digits", {"kind": "digits"}, "digits/dm_ipc1"):
        real = distributed_dd.load_real(what, transform=lambda image: image.sum())
        assert torch.equal(real[3][0], real.tensors[0][3].sum()) and real[3][1] == plain[3][1]


def test_a_result_in_a_folder_that_is_called_like_a_data_set_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mnist").mkdir()
    with pytest.raises(MissingInputError, match="holds no mnist"):  # a folder of data is no result
        distributed_dd.load_real("mnist")
    set_of(Digits(), Path("mnist"))
    assert distributed_dd.load_real("mnist").tensors[0].shape[1:] == (1, 8, 8)


def test_what_is_nothing_of_all_this_is_one_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingInputError, match="did you mean 'digits'"):
        distributed_dd.load_real("digit")
    with pytest.raises(MissingInputError, match="did you mean 'digits/datm_ipc1"):
        distributed_dd.load_real("digits/datm_ipc11")
    with pytest.raises(ConfigError, match="num_trian"):
        distributed_dd.load_real("mnist", num_trian=5)
