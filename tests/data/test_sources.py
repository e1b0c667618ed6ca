"""Every data source against a small copy in its real layout, and what is wrong with damaged ones."""

import os
import pickle

import numpy
import pytest
import torch
from PIL import Image

from distributed_dd.data import DATA_SETS
from distributed_dd.data.arrays import Arrays
from distributed_dd.data.cifar import CIFAR10
from distributed_dd.data.image_folder import ImageFolder
from distributed_dd.data.mnist import MNIST
from distributed_dd.data.svhn import SVHN
from distributed_dd.data.tiny_imagenet import TinyImageNet
from distributed_dd.errors import ConfigError, IntegrityError, MissingInputError
from tests.references import data_layouts as layouts

SHAPES = {
    "mnist": (1, 32, 32),
    "fashion_mnist": (1, 32, 32),
    "cifar10": (3, 32, 32),
    "cifar100": (3, 32, 32),
    "svhn": (3, 32, 32),
    "tiny_imagenet": (3, 64, 64),
    "imagenet64": (3, 64, 64),
    "folder": (3, 12, 12),
    "arrays": (3, 9, 9),
    "digits": (1, 8, 8),
}


@pytest.mark.parametrize("kind", DATA_SETS.members)
def test_a_small_copy_in_its_real_layout_is_read(kind, tmp_path, monkeypatch):
    splits = layouts.source_of(kind, tmp_path, monkeypatch).load()
    assert splits.image_shape == SHAPES[kind]
    for part in (splits.train, splits.validation, splits.test):
        pixels = part.pixels()
        assert pixels.dtype == torch.float32 and pixels.min() >= 0 and pixels.max() <= 1
        assert part.targets.dtype == torch.int64 and len(pixels) == len(part.targets)
        assert set(part.targets.tolist()) == set(range(splits.num_classes))


def test_mnist_pixels_and_labels_are_those_of_the_file(tmp_path):
    """Catches transposed images, padding on one side, shuffled labels."""
    layouts.make_mnist(tmp_path)
    images, labels = layouts.labelled(10, 2, (28, 28), 1)
    test = MNIST(root=str(tmp_path)).load().test
    assert numpy.array_equal(test.images[:, 0, 2:-2, 2:-2].numpy(), images)
    assert test.images[:, :, :2].sum() == 0 and test.targets.tolist() == labels.tolist()
    assert MNIST(root=str(tmp_path), size=28).load().image_shape == (1, 28, 28)


def test_cifar_channels_are_red_green_blue(tmp_path, monkeypatch):
    layouts.make_cifar(tmp_path, monkeypatch)
    images, labels = layouts.labelled(10, 2, (3, 32, 32), 99)
    splits = CIFAR10(root=str(tmp_path)).load()
    assert numpy.array_equal(splits.test.images.numpy(), images)
    assert splits.test.targets.tolist() == labels.tolist() and splits.class_names[3] == "class 3"


def test_imagenet64_counts_classes_from_one_and_channels_are_planes(tmp_path, monkeypatch):
    source = layouts.source_of("imagenet64", tmp_path, monkeypatch)
    images, labels = layouts.labelled(3, 2, (3, 64, 64), 99)
    splits = source.load()
    assert numpy.array_equal(splits.test.images.numpy(), images)
    assert splits.test.targets.tolist() == labels.tolist()
    assert splits.class_names == ("kit fox", "crane (n2)", "crane (n3)")
    file = tmp_path / "imagenet64" / "train_data_batch_2.npz"
    numpy.savez(file, data=numpy.array([{}]), labels=numpy.array([1]))  # objects: pickled, so never opened
    with pytest.raises(IntegrityError, match=r"train_data_batch_2.npz"):
        source.load()


def test_a_pickle_that_is_not_the_published_one_is_never_opened(tmp_path, monkeypatch):
    layouts.make_cifar(tmp_path, monkeypatch)
    marker = tmp_path / "ran"

    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(IntegrityError, match="published checksum"):
        CIFAR10(root=str(tmp_path)).load()
    assert not marker.exists()


def test_svhn_calls_zero_ten(warm_readers, tmp_path):
    layouts.make_svhn(tmp_path)
    images, labels = layouts.labelled(10, 2, (32, 32, 3), 1)
    test = SVHN(root=str(tmp_path)).load().test
    assert test.targets.tolist() == labels.tolist()
    assert numpy.array_equal(test.images.permute(0, 2, 3, 1).numpy(), images)


def test_tiny_imagenet_has_its_classes_in_order_and_its_labels_from_the_text_file(tmp_path):
    layouts.make_tiny_imagenet(tmp_path)
    splits = TinyImageNet(root=str(tmp_path)).load()
    assert splits.class_names == ("word 0", "word 1", "word 2")
    assert splits.test.targets.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("kind", [k for k in DATA_SETS.members if k not in ("digits", "folder", "arrays")])
def test_a_missing_data_set_says_where_it_looked_what_it_expects_and_how_to_fetch_it(kind, tmp_path):
    with pytest.raises(MissingInputError) as caught:
        DATA_SETS.members[kind](root=str(tmp_path)).load()
    error = caught.value
    how = "log in" if kind == "imagenet64" else "data.download=true"
    assert str(tmp_path) in error.where and error.allowed and how in error.fix


def test_an_image_is_decoded_once_and_a_damaged_cache_is_made_anew(tmp_path, monkeypatch):
    layouts.make_folder(tmp_path / "pets")
    source, said = ImageFolder(path=str(tmp_path / "pets")), []
    first = source.load(said.append)
    assert len(said) == 1 and "decoding pets" in said[0]
    again = source.load(said.append)
    assert len(said) == 1 and torch.equal(first.train.images, again.train.images)
    (entry,) = (tmp_path / "cache").glob("*.safetensors")
    content = bytearray(entry.read_bytes())
    content[-1] ^= 1
    entry.write_bytes(content)
    assert torch.equal(source.load(said.append).train.images, first.train.images) and len(said) == 2
    # A changed picture is a changed data set.
    Image.new("RGB", (12, 12)).save(tmp_path / "pets" / "train" / "cat" / "0.png")
    assert source.load(said.append).sha256 != first.sha256 and len(said) == 3


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DISTRIBUTED_DD_CACHE", str(tmp_path / "file"))
    layouts.make_folder(tmp_path / "pets")
    said = []
    assert len(ImageFolder(path=str(tmp_path / "pets")).load(said.append).test) == 12
    assert "cannot be kept" in said[-1]


def test_a_folder_without_a_test_split_is_split_by_fraction(tmp_path):
    layouts.make_folder(tmp_path, splits=(".",))
    splits = ImageFolder(path=str(tmp_path), test_fraction=0.5, label="pets", validation_fraction=0.34).load()
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [4, 2, 6]
    together = torch.cat([p.images.flatten(1) for p in (splits.train, splits.validation, splits.test)])
    assert len(torch.unique(together, dim=0)) == 12 and splits.class_names == ("cat", "dog")


def test_pictures_are_resized_cropped_and_made_grey(tmp_path):
    layouts.make_folder(tmp_path, size=(20, 30))
    assert ImageFolder(path=str(tmp_path), size=8, grey=True).load().image_shape == (1, 8, 8)


def test_one_picture_that_is_also_in_the_test_split_is_noted(tmp_path):
    layouts.make_folder(tmp_path)
    picture = tmp_path / "train" / "cat" / "0.png"
    (tmp_path / "test" / "dog" / "copy.png").write_bytes(picture.read_bytes())
    assert ImageFolder(path=str(tmp_path)).load().notes == (
        "1 of 13 test images are also in the train split, byte for byte",
    )


def damaged_folder(tmp_path, damage):
    layouts.make_folder(tmp_path)
    match damage:
        case "one class":
            for split in ("train", "test"):
                (tmp_path / split / "dog").rename(tmp_path / f"{split}-dog")
        case "sizes":
            Image.new("RGB", (5, 5)).save(tmp_path / "train" / "cat" / "small.png")
        case "unreadable":
            (tmp_path / "train" / "cat" / "broken.png").write_bytes(b"no picture")
        case "classes":
            (tmp_path / "test" / "dog").rename(tmp_path / "test" / "dogg")
        case "lonely":
            for file in list((tmp_path / "train" / "cat").iterdir())[1:]:
                file.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("one class", "has 1 class"),
        ("sizes", "small.png"),
        ("unreadable", "broken.png: 1 of 13 images cannot be read"),
        ("classes", "dog, dogg"),
        ("lonely", "class 'cat' has 1 training images"),
    ],
)
def test_a_damaged_folder_is_refused_by_name(tmp_path, damage, message):
    damaged_folder(tmp_path, damage)
    with pytest.raises(IntegrityError) as caught:
        ImageFolder(path=str(tmp_path)).load()
    assert message in str(caught.value)


def test_unreadable_pictures_may_be_skipped_and_are_counted(tmp_path):
    damaged_folder(tmp_path, "unreadable")
    splits = ImageFolder(path=str(tmp_path), unreadable="skip").load()
    assert "1 unreadable pictures were skipped" in splits.notes[0]
    assert len(splits.train) + len(splits.validation) == 12


def test_a_missing_folder_and_an_empty_one_name_the_layout(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(MissingInputError, match="<class>"):
            ImageFolder(path=str(path)).load()
    layouts.make_folder(tmp_path, splits=("train",))
    with pytest.raises(ConfigError, match="no test folder"):
        ImageFolder(path=str(tmp_path)).load()


def arrays(tmp_path, **changed):
    images, labels = layouts.labelled(3, 8, (9, 9), 0)
    path = tmp_path / "mine.npz"
    numpy.savez(path, **{"images": images, "labels": labels, **changed})
    return Arrays(path=str(path))


def test_arrays_without_a_test_part_are_split(tmp_path):
    splits = arrays(tmp_path).load()
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [16, 3, 5]
    assert splits.image_shape == (1, 9, 9) and splits.name == "mine"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": numpy.arange(24) - 3}, "labels go down to -3"),
        ({"labels": numpy.zeros(24, "int64")}, "has 1 class"),
        ({"labels": numpy.zeros(7, "int64")}, "labels are torch.int64 (7,)"),
        ({"images": numpy.zeros((24, 9, 9), "float32")}, "images are torch.float32"),
        ({"images": numpy.zeros((24, 5, 9, 9), "uint8")}, "images are (24, 5, 9, 9)"),
        ({"labels": numpy.array([object()] * 24)}, "cannot be read"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, changed, message):
    with pytest.raises(IntegrityError) as caught:
        arrays(tmp_path, **changed).load()
    assert message in str(caught.value)


def test_labels_beyond_the_named_classes_are_refused(tmp_path):
    path = arrays(tmp_path).path
    with pytest.raises(IntegrityError, match=r"labels 0 \.\. 2"):
        Arrays(path=path, class_names=("a", "b")).load()


def test_fewer_training_images_may_be_used_and_more_than_there_are_not(tmp_path):
    layouts.make_mnist(tmp_path)
    splits = MNIST(root=str(tmp_path), num_train=20).load()
    assert torch.bincount(splits.train.targets).tolist() == [2] * 10
    with pytest.raises(ConfigError, match="50 or less"):
        MNIST(root=str(tmp_path), num_train=51).load()


def test_where_files_lie_is_no_part_of_a_run_s_identity(tmp_path):
    from distributed_dd.family import identity

    assert identity(MNIST(root="a", download=True)) == identity(MNIST(root="b"))
    assert identity(MNIST()) != identity(MNIST(size=28))
