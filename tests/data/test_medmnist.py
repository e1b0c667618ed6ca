"""MedMNIST's .npz files as they are published: labels in a column, a validation split of their own."""

import numpy
import pytest
import torch

from distributed_dd.cli import main
from distributed_dd.data.arrays import Arrays
from distributed_dd.data.decoded import Decoded
from distributed_dd.data.material import prepare
from distributed_dd.data.splits import Images
from distributed_dd.data.whitening import Standardise
from distributed_dd.durable import read_json
from distributed_dd.errors import ConfigError, IntegrityError
from tests.references import data_layouts as layouts

SIZES = {"train": 8, "val": 3, "test": 2}
NUM_CLASSES = 3
SHA256_OF_MINE = "ec008d32f98f3da0e6230361770c50ddeac990e1be12258615dbb399aec6f752"


def medmnist(folder, shape=(28, 28, 3), **changed):
    """The six arrays of a file; ``changed`` replaces some, or leaves them out where it is None."""
    content = {}
    for seed, (split, per_class) in enumerate(SIZES.items()):
        images, labels = layouts.labelled(NUM_CLASSES, per_class, shape, seed)
        content |= {f"{split}_images": images, f"{split}_labels": labels.astype("uint8")[:, None]}
    path = folder / "pathmnist.npz"
    numpy.savez(path, **{name: array for name, array in {**content, **changed}.items() if array is not None})
    return path, content


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 3)])
def test_the_three_splits_are_those_of_the_file(tmp_path, shape):
    """Catches a validation split that is cut from the training images, and one that is mixed up with the test."""
    path, content = medmnist(tmp_path, shape)
    splits = Arrays(path=str(path)).load()
    assert splits.class_names == ("0", "1", "2") and splits.name == "pathmnist"
    for split, part in (("train", splits.train), ("val", splits.validation), ("test", splits.test)):
        pixels = part.images[:, 0] if shape == (28, 28) else part.images.permute(0, 2, 3, 1)
        assert numpy.array_equal(pixels.numpy(), content[f"{split}_images"])
        assert part.targets.tolist() == content[f"{split}_labels"][:, 0].tolist() and part.targets.dtype == torch.int64


def test_the_fraction_says_nothing_then_and_a_note_says_so(tmp_path):
    path, _ = medmnist(tmp_path)
    one, other = (Arrays(path=str(path), validation_fraction=share).load() for share in (0.1, 0.5))
    assert torch.equal(one.train.images, other.train.images) and len(one.train) == 24 and len(one.validation) == 9
    assert one.notes == ("the file's own 9 validation images are used: validation_fraction says nothing",)


def test_fewer_training_images_may_be_used_class_by_class(tmp_path):
    path, _ = medmnist(tmp_path)
    splits = Arrays(path=str(path), num_train=6).load()
    assert torch.bincount(splits.train.targets).tolist() == [2, 2, 2] and len(splits.validation) == 9
    assert len(Arrays(path=str(path), num_train=24).load().train) == 24
    with pytest.raises(ConfigError, match="24 or less"):
        Arrays(path=str(path), num_train=25).load()


def test_whole_arrays_may_bring_a_validation_split_too(tmp_path):
    images, labels = layouts.labelled(NUM_CLASSES, 8, (9, 9), 0)
    val_images, val_labels = layouts.labelled(NUM_CLASSES, 2, (9, 9), 1)
    numpy.savez(tmp_path / "mine.npz", images=images, labels=labels, val_images=val_images, val_labels=val_labels)
    splits = Arrays(path=str(tmp_path / "mine.npz")).load()
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [19, 6, 5]
    assert numpy.array_equal(splits.validation.images[:, 0].numpy(), val_images)


def test_the_hash_depends_on_a_validation_split_and_is_what_it_was_without(tmp_path):
    """Names of runs depend on it."""
    layouts.make_arrays(tmp_path / "mine.npz")
    assert Arrays(path=str(tmp_path / "mine.npz")).load().sha256 == SHA256_OF_MINE
    path, content = medmnist(tmp_path)
    hashes = {Arrays(path=str(path)).load().sha256}
    for changed in ({"val_images": 255 - content["val_images"]}, {"val_labels": content["val_labels"][::-1]}):
        hashes.add(Arrays(path=str(medmnist(tmp_path, **changed)[0])).load().sha256)
    hashes.add(Arrays(path=str(medmnist(tmp_path, val_images=None, val_labels=None)[0])).load().sha256)
    assert len(hashes) == 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"val_labels": None}, "has no val_labels, only"),
        ({"val_images": None}, "has no val_images, only"),
        ({"test_images": None}, "has no test_images, only"),
        ({"val_labels": numpy.zeros((9, 14), "uint8")}, "val_labels are torch.uint8 (9, 14): 14 labels for"),
        ({"val_labels": numpy.zeros((8, 1), "uint8")}, "val_labels are torch.uint8 (8, 1)"),
        ({"val_labels": numpy.full((9, 1), 200, "uint8")}, "val_labels go up to 200"),
        ({"val_images": numpy.zeros((9, 28, 28), "uint8")}, "(3, 28, 28), validation images (1, 28, 28)"),
        ({"val_images": numpy.zeros((0, 28, 28, 3), "uint8")}, "val_images are torch.uint8 (0, 28, 28, 3)"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_are_one_error(tmp_path, changed, message):
    path, _ = medmnist(tmp_path, **changed)
    with pytest.raises(IntegrityError) as caught:
        Arrays(path=str(path)).load()
    assert message in str(caught.value)


def test_volumes_are_refused_as_such(tmp_path):
    path, _ = medmnist(tmp_path, (28, 28, 28))
    with pytest.raises(IntegrityError, match=r"train_images are \(24, 28, 28, 28\), .* volumes are no images"):
        Arrays(path=str(path)).load()
    path, _ = medmnist(tmp_path, (28, 28, 28, 3))
    with pytest.raises(IntegrityError, match=r"train_images are torch.uint8 \(24, 28, 28, 28, 3\)"):
        Arrays(path=str(path)).load()


def test_images_that_a_split_should_be_new_to_are_counted(tmp_path):
    _, content = medmnist(tmp_path)
    val, test = content["val_images"].copy(), content["test_images"].copy()
    val[:2], test[3], test[4:6] = content["train_images"][:2], content["train_images"][5], val[7:9]
    splits = Arrays(path=str(medmnist(tmp_path, val_images=val, test_images=test)[0])).load()
    assert splits.notes[1:] == (
        "1 of 6 test images are also in the train split, byte for byte",
        "2 of 9 validation images are also in the train split, byte for byte",
        "2 of 6 test images are also in the validation split, byte for byte",
    )


def test_the_cache_keeps_a_validation_split_and_the_lack_of_one(tmp_path):
    parts = [Images(*map(torch.from_numpy, layouts.labelled(2, size, (1, 4, 4), size))) for size in (3, 2, 1)]
    (tmp_path / "file").write_text("")

    def read(name, decoded):
        arguments = {"how": {}, "decode": lambda: decoded, "say": lambda text: None}
        for _ in range(2):  # made, and from the cache
            kept = Decoded.cached(name, [tmp_path / "file"], tmp_path, **arguments)
            arguments["decode"] = lambda: pytest.fail("decoded twice")
        return kept

    with_one = read("with", Decoded(parts[0], parts[2], ("a", "b"), validation=parts[1]))
    assert torch.equal(with_one.validation.images, parts[1].images) and torch.equal(
        with_one.test.images, parts[2].images
    )
    assert read("without", Decoded(parts[0], parts[2], ("a", "b"))).validation is None


RUN = """
network: {kind: mlp, depth: 2, width: 8}
images_per_class: 1
num_outer_steps: 2
tracker: none
method: {kind: distribution_matching, batch_size: 4}
evaluate:
  num_epochs: 2
  num_networks: 2
  num_validation_networks: 1
  num_epochs_full_data: 1
  every: 2
  controls: []
"""


def test_a_run_chooses_on_the_file_s_own_validation_images(tmp_path, capsys):
    path, _ = medmnist(tmp_path)
    assert len(prepare(Arrays(path=str(path)), Standardise(), 8).validation) == 9  # 8 of a class: none was set aside
    (tmp_path / "med.yaml").write_text(f"data: {{kind: arrays, path: {path}}}\noutput: {tmp_path / 'runs'}{RUN}")
    assert main(["run", str(tmp_path / "med.yaml")]) == 0
    assert "the file's own 9 validation images" in capsys.readouterr().out
    (report,) = (tmp_path / "runs").glob("*/report.json")
    assert read_json(report)["num_test"] == 6
