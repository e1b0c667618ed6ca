"""Sets of others in the forms in which they are published: the same digits come out of each of them."""

import io
import json

import numpy
import pyarrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from distributed_dd.cli import main
from distributed_dd.data.digits import Digits
from distributed_dd.data.whitening import Standardise
from distributed_dd.errors import ConfigError, IntegrityError, MissingInputError, UserError
from distributed_dd.evaluation import artefact
from distributed_dd.evaluation.importing import IMAGES, LABELS, RATE
from distributed_dd.evaluation.published_sets import Wanted, read_published
from distributed_dd.evaluation.published_sets.fitting import fit_to
from distributed_dd.evaluation.published_sets.foreign_set import SetReading
from distributed_dd.learning.classes import hard_logits

NUM_CLASSES, SHAPE = 10, (1, 8, 8)
HALF_A_STEP = 0.5 / 255 + 1e-6
SPLITS = Digits().load()
FITTED = Standardise().fit(SPLITS.train.pixels())
# Two digits of each class, class by class.
CHOSEN = torch.cat([SPLITS.train.of_class(number)[:2] for number in range(NUM_CLASSES)])
PIXELS, CLASSES = SPLITS.train.images[CHOSEN], SPLITS.train.targets[CHOSEN]
SEEN = FITTED.apply(PIXELS)
BYTES = (PIXELS * 255).round().to(torch.uint8)
SOFT = torch.randn(20, NUM_CLASSES, generator=torch.Generator().manual_seed(0)) + 4 * torch.eye(10)[CLASSES]
BACKWARDS = tuple(reversed(SPLITS.class_names))


def taken(source, **said):
    """The set in ``source`` as it is imported, and what people were told."""
    lines = []
    reading = SetReading(**said)
    wanted = Wanted(image_shape=SHAPE, num_classes=NUM_CLASSES, reading=reading)
    fitted = fit_to(read_published(source, wanted), reading, SPLITS, FITTED, lines.append)
    return fitted.tensors, "\n".join(lines)


def png(image):
    """(C, H, W) bytes as a file."""
    content = io.BytesIO()
    Image.fromarray(image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy()).save(content, "PNG")
    return content.getvalue()


def same(tensors, images=SEEN, labels=None, classes=CLASSES):
    """Catches another order, scale, type or label of any image."""
    labels = hard_logits(classes, NUM_CLASSES) if labels is None else labels
    assert tensors["images"].dtype == tensors["labels"].dtype == torch.float32
    assert torch.equal(tensors["images"], images) and torch.equal(tensors["classes"], classes)
    assert torch.equal(tensors["labels"], labels)


def as_pictures(folder, name_of, images=BYTES):
    for place, (image, number) in enumerate(zip(images, CLASSES.tolist(), strict=True)):
        own = folder / name_of(number)
        own.mkdir(parents=True, exist_ok=True)
        (own / f"{place:03d}.png").write_bytes(png(image))
    return folder


def as_parquet(file, class_names=(), **columns):
    """What the ``datasets`` library writes, by pyarrow alone."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pictures = [{"bytes": png(image), "path": None} for image in BYTES]
    columns = {"image": pictures, "label": CLASSES.tolist()} | columns
    table = pyarrow.table({name: values for name, values in columns.items() if values is not None})
    if class_names:
        features = {"label": {"names": list(class_names), "_type": "ClassLabel"}, "image": {"_type": "Image"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, file)
    return file.parent


OF_BYTES = FITTED.apply(BYTES.float() / 255)


def test_pt_files_of_the_field(tmp_path):
    shuffled = torch.randperm(20, generator=torch.Generator().manual_seed(1)).argsort()
    torch.save(SEEN[shuffled], tmp_path / IMAGES)
    torch.save(CLASSES[shuffled], tmp_path / LABELS)
    torch.save(torch.tensor(0.02), tmp_path / RATE)
    tensors, said = taken(tmp_path)
    order = CLASSES[shuffled].argsort(stable=True)
    same(tensors, SEEN[shuffled][order])
    assert float(tensors["learning_rate"]) == pytest.approx(0.02) and "as networks see them" in said
    torch.save(PIXELS, tmp_path / IMAGES)
    torch.save(SOFT, tmp_path / LABELS)
    tensors, _ = taken(tmp_path, values="pixels")
    same(
        {**tensors, "classes": CLASSES},
        SEEN[SOFT.argmax(1).argsort(stable=True)],
        SOFT[SOFT.argmax(1).argsort(stable=True)],
    )


def test_pt_files_of_plain_names_are_asked_about(tmp_path):
    torch.save(PIXELS, tmp_path / "images.pt")
    torch.save(CLASSES.to(torch.int16), tmp_path / "labels.pt")
    with pytest.raises(ConfigError, match=r"set.values: is asked for.* from 0 to 1\n.*pixels.*seen"):
        taken(tmp_path)
    same(taken(tmp_path, values="pixels")[0])
    same(taken(tmp_path, values="seen")[0], PIXELS)


@pytest.mark.parametrize("name_of", [str, "{:05d}".format], ids=["names", "numbers"])
def test_folders_of_pictures(tmp_path, name_of):
    tensors, said = taken(as_pictures(tmp_path, name_of))
    same(tensors, OF_BYTES)
    assert (tensors["images"] - SEEN).abs().max() < HALF_A_STEP * float(FITTED.forward.max())
    assert ("taken as class numbers" in said) == (name_of(3) == "00003") and "learning_rate" not in tensors


def test_folders_of_other_names_are_asked_about_and_taken_in_the_order_that_is_said(tmp_path):
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    as_pictures(tmp_path, words.__getitem__)
    with pytest.raises(ConfigError, match=r"which class is which\? the set has eight, five.*\n.*digits has 0, 1") as e:
        taken(tmp_path)
    assert "set.class_names=[" in str(e.value)
    same(taken(tmp_path, class_names=tuple(words))[0], OF_BYTES)
    swapped = ("one", "zero", *words[2:])
    classes = taken(tmp_path, class_names=swapped)[0]
    assert torch.equal(classes["images"], OF_BYTES[[2, 3, 0, 1, *range(4, 20)]])
    with pytest.raises(ConfigError, match=r"set.class_names"):
        taken(tmp_path, class_names=tuple(words[:9]))


def test_a_folder_of_real_pictures_below_train(tmp_path):
    as_pictures(tmp_path / "train", str)
    as_pictures(tmp_path / "test", str, BYTES.flip(0))
    (tmp_path / "__MACOSX").mkdir()
    same(taken(tmp_path)[0], OF_BYTES)


def test_npz(tmp_path):
    file = tmp_path / "set.npz"
    numpy.savez(file, pixels=BYTES[:, 0].numpy(), labels=CLASSES.numpy(), learning_rate=0.5)
    tensors, said = taken(file)
    same(tensors, OF_BYTES)
    assert float(tensors["learning_rate"]) == 0.5 and "taken as pixels" in said
    numpy.savez(file, images=PIXELS.permute(0, 2, 3, 1).numpy(), soft_labels=SOFT.softmax(1).numpy())
    tensors, said = taken(tmp_path, values="pixels")
    order = SOFT.argmax(1).argsort(stable=True)
    assert torch.equal(tensors["images"], SEEN[order]) and "they are probabilities" in said
    assert (tensors["labels"].softmax(1) - SOFT.softmax(1)[order]).abs().max() < 1e-6


def test_names_in_an_npz_order_its_classes_and_its_soft_labels(tmp_path):
    file, backwards = tmp_path / "set.npz", 9 - CLASSES
    columns = SOFT.flip(1)
    numpy.savez(file, images=SEEN.numpy(), classes=backwards.numpy(), labels=columns.numpy(), class_names=BACKWARDS)
    same(taken(file, values="seen")[0], SEEN, SOFT)
    numpy.savez(file, images=SEEN.numpy(), labels=backwards.numpy(), class_names=["cat", *BACKWARDS[1:]])
    with pytest.raises(ConfigError, match="which class is which"):
        taken(file, values="seen")


@pytest.mark.parametrize("place", ["data/train-00000-of-00001.parquet", "train.parquet"])
def test_parquet_of_pictures_with_names_of_classes(tmp_path, place):
    as_parquet(tmp_path / place, BACKWARDS, label=(9 - CLASSES).tolist(), soft_label=SOFT.flip(1).tolist())
    tensors, _ = taken(tmp_path)
    same(tensors, OF_BYTES, SOFT)
    as_parquet(tmp_path / place.replace("train", "test"), BACKWARDS, label=[0] * 20)
    tensors, said = taken(tmp_path)
    assert torch.equal(tensors["labels"], hard_logits(CLASSES, 10)) is False and "of the train split" in said


def test_parquet_of_lists_of_numbers(tmp_path):
    as_parquet(tmp_path / "a.parquet", image=BYTES[:, 0].tolist())
    same(taken(tmp_path)[0], OF_BYTES)
    as_parquet(tmp_path / "blobs" / "0123.blob", image=BYTES.flatten(1).tolist())
    (tmp_path / "a.parquet").unlink()
    (tmp_path / "a.parquet").symlink_to(tmp_path / "blobs" / "0123.blob")  # as the hub's cache has them
    same(taken(tmp_path / "a.parquet")[0], OF_BYTES)
    as_parquet(
        tmp_path / "a.parquet",
        image=pyarrow.array(SEEN.tolist(), pyarrow.list_(pyarrow.list_(pyarrow.list_(pyarrow.float32())))),
    )
    same(taken(tmp_path, values="seen")[0], SEEN)


def test_a_saved_data_set_by_pyarrow_alone(tmp_path):
    folder = tmp_path / "train"
    folder.mkdir()
    half = pyarrow.table(
        {"image": [{"bytes": png(image), "path": "x.png"} for image in BYTES], "label": CLASSES.numpy()}
    )
    for number, part in enumerate((half[:9], half[9:])):
        with pyarrow.ipc.new_stream(folder / f"data-{number:05d}-of-00002.arrow", half.schema) as stream:
            stream.write_table(part)
    names = [f"data-{number:05d}-of-00002.arrow" for number in range(2)]
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    for source in (tmp_path, folder):
        same(taken(source)[0], OF_BYTES)
    (folder / names[1]).unlink()
    with pytest.raises(MissingInputError, match="is missing"):
        taken(tmp_path)


@pytest.mark.parametrize("form", ["parquet", "disk", "dict"])
def test_what_the_datasets_library_writes(tmp_path, form):
    datasets = pytest.importorskip("datasets", reason="the extra [hub] is not installed")
    label = datasets.ClassLabel(names=list(BACKWARDS))
    features = datasets.Features(
        image=datasets.Image(), label=label, soft_label=datasets.List(datasets.Value("float32"))
    )
    rows = {
        "image": [Image.fromarray(image[0].numpy()) for image in BYTES],
        "label": (9 - CLASSES).tolist(),
        "soft_label": SOFT.flip(1).tolist(),
    }
    saved = datasets.Dataset.from_dict(rows, features=features)
    folder = tmp_path / "set"
    if form == "parquet":
        folder.mkdir()
        saved.to_parquet(folder / "train.parquet")
    else:
        (saved if form == "disk" else datasets.DatasetDict(train=saved)).save_to_disk(folder)
    same(taken(folder)[0], OF_BYTES, SOFT)


# -- what is refused, or asked for -------------------------------------------------------------------------------


def test_pixels_out_of_range_are_refused_with_what_to_do(tmp_path):
    file = tmp_path / "set.npz"
    numpy.savez(file, images=(255 * PIXELS).numpy(), labels=CLASSES.numpy())
    with pytest.raises(IntegrityError, match="from 0 to 255") as error:
        taken(file, values="pixels")
    assert "divide them by 255" in str(error.value)
    numpy.savez(file, images=SEEN.numpy(), labels=CLASSES.numpy())
    with pytest.raises(IntegrityError, match=r"from -\d"):
        taken(file, values="pixels")
    numpy.savez(file, images=BYTES.numpy(), labels=CLASSES.numpy())
    with pytest.raises(ConfigError, match="bytes, which are pixels"):
        taken(file, values="seen")


def test_another_size_is_resized_only_where_that_is_asked_for(tmp_path):
    large = BYTES.repeat_interleave(2, 2).repeat_interleave(2, 3)
    as_pictures(tmp_path / "png", str, large)
    numpy.savez(tmp_path / "set.npz", pixels=large.numpy(), labels=CLASSES.numpy())
    for source in (tmp_path / "png", tmp_path / "set.npz"):
        with pytest.raises(ConfigError, match="images are 16 x 16, those of digits 8 x 8") as error:
            taken(source)
        assert "set.resize=true" in str(error.value)
        near = FITTED.invert(taken(source, resize=True)[0]["images"])
        assert float((near - PIXELS).abs().mean()) < 0.08, "the same digits, a little blurred"
    (tmp_path / "png" / "3" / "odd.png").write_bytes(png(BYTES[0]))
    with pytest.raises(IntegrityError, match="2 sizes") as error:
        taken(tmp_path / "png")
    assert "set.resize=true" in str(error.value)


def test_pictures_in_colour_are_no_grey_digits(tmp_path):
    colours = BYTES.repeat(1, 3, 1, 1)
    same(taken(as_pictures(tmp_path / "grey", str, colours))[0], OF_BYTES)
    colours[5, 1] //= 2
    with pytest.raises(IntegrityError, match=r"in colour \(20, 3, 8, 8\), those of digits are grey"):
        taken(as_pictures(tmp_path / "colours", str, colours))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": None, "fine_label": [0] * 20}, "has no column label; its columns: image, fine_label"),
        ({"image": None, "label": None, "x": [1] * 20}, "has no column image and no label; its columns: x"),
        ({"label": [0.5] * 20}, "label is no column of whole numbers"),
        ({"label": [*[0] * 19, 10]}, "has labels 0 .. 10"),
        ({"label": [*[0] * 19, None]}, "1 rows without a value"),
        ({"image": [{"bytes": None, "path": "a.png"}] * 20}, "bytes are not in the table"),
        ({"image": [{"bytes": b"no picture", "path": None}] * 20}, "20 of 20 images cannot be read"),
        ({"image": ["http://a/b.png"] * 20}, "image is string, no numbers"),
        ({"image": [[[[[1]]]]] * 20}, "nested in more than 3 levels"),
        ({"image": [*[[1, 2]] * 19, [1]]}, "lists of 2 lengths"),
        ({"image": [[[float("nan")] * 8] * 8] * 20}, "not finite"),
        ({"soft_label": [[0.5, 0.5]] * 20}, r"soft_label is \(20, 2\)"),
    ],
)
def test_parquet_of_other_columns_is_refused_in_one_error(tmp_path, columns, message):
    as_parquet(tmp_path / "a.parquet", **columns)
    with pytest.raises(UserError, match=message) as error:
        taken(tmp_path)
    assert len(str(error.value)) < 800


def test_damaged_tables_are_refused(tmp_path):
    as_parquet(tmp_path / "a.parquet")
    content = (tmp_path / "a.parquet").read_bytes()
    for damaged in (content[: len(content) // 2], b"PAR1" + content[100:], b""):
        (tmp_path / "a.parquet").write_bytes(damaged)
        with pytest.raises(UserError, match="cannot be read"):
            taken(tmp_path)
    (tmp_path / "a.parquet").rename(tmp_path / "a.arrow")
    with pytest.raises(UserError, match="cannot be read"):
        taken(tmp_path / "a.arrow")


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    for changed in ({"images": SEEN * float("nan")}, {"labels": SOFT / 0}):
        arrays = {"images": SEEN, "labels": SOFT} | changed
        numpy.savez(tmp_path / "set.npz", **{name: values.numpy() for name, values in arrays.items()})
        with pytest.raises(IntegrityError, match="not finite"):
            taken(tmp_path, values="seen")


def test_an_empty_folder_and_a_class_without_pictures(tmp_path):
    with pytest.raises(MissingInputError, match="holds no set in any form") as error:
        taken(tmp_path)
    assert all(word in str(error.value) for word in ("parquet", ".npz", IMAGES, "class folders"))
    as_pictures(tmp_path, str)
    for file in (tmp_path / "4").iterdir():
        file.unlink()
    with pytest.raises(MissingInputError, match="the folder 4 holds no pictures"):
        taken(tmp_path)


# -- what people type --------------------------------------------------------------------------------------------

HERE = ["--on", "cluster.yaml"]


@pytest.fixture
def on(tmp_path, monkeypatch):
    """Where tasks run: this process."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cluster.yaml").write_text("kind: in_process\n")


def evaluate(*words):
    return main(["evaluate", *map(str, words), *HERE])


def test_evaluate_scores_a_set_of_others_on_the_data_of_a_configuration(on, tmp_path, tiny_yaml, capsys):
    """The CLI from a folder of pictures to scores; keys of the evaluation and of the configuration are kept apart."""
    as_pictures(tmp_path / "theirs", "{:05d}".format)
    words = (
        "images_per_class=2",
        "num_networks=2",
        "full_data=false",
        "no_augmentation=false",
        "evaluate.num_epochs=2",
    )
    assert evaluate("theirs", tiny_yaml, *words) == 0
    out = capsys.readouterr().out
    assert "taken as class numbers" in out and "the set is in" in out
    (folder,) = (tmp_path / "runs").glob("digits-imported-ipc2-*")
    imported = artefact.load_distilled(folder)
    assert torch.equal(imported.images, OF_BYTES) and len(imported.manifest["distillation"]["imported"]) == 20
    result = json.loads((folder / "cross_architecture.json").read_text())
    (entry,) = result["networks"]
    assert entry["network"]["kind"] == "mlp" and entry["network"]["width"] == 16, "the configuration's network"
    assert {row["name"] for row in entry["rows"]} == {"distilled", "random_real"}
    assert result["recipe"]["num_epochs"] == 2 and all(row["num_networks"] == 2 for row in entry["rows"])
    assert evaluate("theirs", tiny_yaml, *words) == 0
    assert "mlp: already evaluated" in capsys.readouterr().out
    assert evaluate(folder, tiny_yaml) == 2 and "its manifest says" in capsys.readouterr().err


def test_mistakes_around_a_set_of_others_are_one_error_and_write_nothing(on, tmp_path, tiny_yaml, capsys):
    as_pictures(tmp_path / "theirs", str)

    def refused(code, *words):
        assert evaluate(*words) == code
        assert not (tmp_path / "runs").exists()
        return capsys.readouterr().err

    assert "name a configuration" in refused(2, "theirs")
    assert "to do:   images_per_class=2" in refused(2, "theirs", tiny_yaml)
    assert "did you mean 'network'" in refused(2, "theirs", tiny_yaml, "netwrk=mlp")
    assert "set.valeus: unknown key" in refused(2, "theirs", tiny_yaml, "set.valeus=pixels")
    assert "allowed: pixels or seen" in refused(2, "theirs", tiny_yaml, "set.values=bytes")
    (tmp_path / "theirs" / "7" / "015.png").unlink()
    assert "holds 1 to 2 of each class: 1 of '7', 2 of '0'" in refused(2, "theirs", tiny_yaml, "images_per_class=2")
    assert "holds no distilled set" in refused(3, tmp_path / "theirs" / "0")
    assert "holds no set in any form" in refused(3, tmp_path / "theirs" / "0", tiny_yaml)


def test_more_images_than_a_class_has_leave_random_real_images_out(on, tmp_path, tiny_yaml, capsys):
    """Catches a control of fewer images than the set has beside it."""
    count = int(torch.bincount(SPLITS.train.targets).min()) + 1
    classes = torch.arange(10).repeat_interleave(count)
    images = torch.randint(0, 256, (len(classes), 1, 8, 8), dtype=torch.uint8)
    numpy.savez(tmp_path / "many.npz", images=images.numpy(), labels=classes.numpy())
    quick = ("num_networks=1", "full_data=false", "evaluate.num_epochs=1", f"images_per_class={count}")
    assert evaluate("many.npz", tiny_yaml, *quick) == 0
    assert f"a class has {count - 1}, the set {count}" in capsys.readouterr().out
    (file,) = (tmp_path / "runs").glob("*/cross_architecture.json")
    (entry,) = json.loads(file.read_text())["networks"]
    assert {row["name"] for row in entry["rows"]} == {"distilled", "distilled_no_augmentation"}
