"""Files that people bring: one clear error each, and never a traceback, a hang, a full memory or other pixels."""

import gzip
import io
import json
import os
import resource
import shutil
import socket
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from distributed_dd.data import Fitted, Images, Splits, svhn
from distributed_dd.data.arrays import Arrays
from distributed_dd.data.cifar import CIFAR10
from distributed_dd.data.image_folder import ImageFolder
from distributed_dd.data.imagenet64 import ImageNet64
from distributed_dd.data.mnist import MNIST
from distributed_dd.data.reading import check_regular
from distributed_dd.data.svhn import SVHN
from distributed_dd.data.tiny_imagenet import TinyImageNet
from distributed_dd.errors import ConfigError, IntegrityError, MissingInputError, UserError
from distributed_dd.evaluation.distilled_set import DistilledSet
from distributed_dd.evaluation.exporting import as_images, as_npz, folders_of
from distributed_dd.evaluation.importing import IMAGES, LABELS, RATE, import_experts
from distributed_dd.evaluation.preview import preview_png
from distributed_dd.evaluation.published_sets import Wanted, read_published
from distributed_dd.evaluation.published_sets.fitting import fit_to
from distributed_dd.evaluation.published_sets.foreign_set import SetReading
from distributed_dd.learning.networks import MLP
from distributed_dd.trajectories import foreign
from distributed_dd.trajectories.foreign import read_pt
from tests.references import data_layouts as layouts


def put(path: Path, kind: str) -> Path:
    """Something that is no file, or cannot be read, at ``path``."""
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "dangling link":
            path.symlink_to(path.parent / "nowhere")
        case "circle of links":
            path.symlink_to(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(os.path.relpath(path))
        case "unreadable":
            path.write_bytes(b"")
            path.chmod(0)
    return path


NO_FILES = {
    "folder": "is a folder",
    "pipe": "is a pipe",
    "device": "is a device",
    "dangling link": "leads nowhere",
    "circle of links": "cannot be opened",
    "socket": "cannot be opened",
    "unreadable": "Permission denied",
}


@pytest.fixture(params=NO_FILES)
def no_file(request, tmp_path, monkeypatch):
    """A kind of what is no file, and what is said of it."""
    monkeypatch.chdir(tmp_path)  # a socket's name must be short
    if request.param == "unreadable" and os.geteuid() == 0:
        pytest.skip("this user may read everything")
    return request.param, NO_FILES[request.param]


def test_what_is_no_file_is_refused_wherever_a_file_is_named(no_file, tmp_path):
    kind, words = no_file
    for name in ("mine.npz", "mine.safetensors"):
        with pytest.raises(MissingInputError, match=words):
            Arrays(path=str(put(tmp_path / name, kind))).load()
    with pytest.raises(MissingInputError, match=words):
        read_pt(put(tmp_path / "images_best.pt", kind))
    with pytest.raises(MissingInputError, match=words):
        import_experts([put(tmp_path / "replay_buffer_0.pt", kind)], MLP(), torch.nn.Linear(2, 2), tmp_path, None)


@pytest.mark.parametrize("name", ["a\0b.npz", "x" * 5000 + ".npz", "/dev/zero", ""])
def test_names_that_no_file_can_have_are_refused(name):
    with pytest.raises(MissingInputError):
        Arrays(path=name).load()


@pytest.mark.parametrize(
    ("make", "cls", "file"),
    [
        (layouts.make_mnist, MNIST, "MNIST/raw/t10k-labels-idx1-ubyte.gz"),
        (layouts.make_svhn, SVHN, "SVHN/test_32x32.mat"),
        (layouts.make_imagenet64, ImageNet64, "imagenet64/train_data_batch_2.npz"),
        (layouts.make_tiny_imagenet, TinyImageNet, "tiny-imagenet-200/wnids.txt"),
        (None, CIFAR10, "cifar-10-batches-py/data_batch_2"),
    ],
)
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_published_file_that_is_no_file_is_refused(make, cls, file, kind, tmp_path, monkeypatch):
    (make or (lambda root: layouts.make_cifar(root, monkeypatch)))(tmp_path)
    (tmp_path / file).unlink()
    put(tmp_path / file, kind)
    with pytest.raises(UserError, match=f"is a {kind}"):
        cls(root=str(tmp_path)).load()


# -- pictures that were replaced ----------------------------------------------------------------------------------


def replaced(path: Path, other: Path) -> None:
    """``other`` in place of ``path``, with its size and times, as ``cp -p`` would keep them."""
    before = path.stat()
    content = other.read_bytes()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture(params=["hashed", "by index"])
def indexed(request, monkeypatch):
    if request.param == "by index":
        monkeypatch.setattr("distributed_dd.data.fingerprint.FEW", 1)


def test_a_picture_replaced_with_size_and_times_kept_is_seen(tmp_path, indexed):
    layouts.make_folder(tmp_path / "pets", size=(12, 12))
    for file in (tmp_path / "pets").rglob("*.png"):  # of one size each
        Image.open(file).save(file.with_suffix(".bmp"))
        file.unlink()
    source = ImageFolder(path=str(tmp_path / "pets"))
    first = source.load()
    a, b = sorted((tmp_path / "pets/train/cat").iterdir())[:2]
    assert a.stat().st_size == b.stat().st_size
    replaced(a, b)
    second = source.load()
    assert second.sha256 != first.sha256 and source.load().sha256 == second.sha256


def test_of_many_files_those_that_stayed_are_not_read_again(tmp_path, monkeypatch):
    from distributed_dd.data import fingerprint

    monkeypatch.setattr(fingerprint, "FEW", 1)
    monkeypatch.setattr(fingerprint, "SETTLED_SECONDS", -1)
    layouts.make_folder(tmp_path / "pets")
    source = ImageFolder(path=str(tmp_path / "pets"))
    first, opened, read = source.load(), [], fingerprint.open_regular
    monkeypatch.setattr(fingerprint, "open_regular", lambda file: opened.append(file) or read(file))
    assert source.load().sha256 == first.sha256 and not opened
    a, b = sorted((tmp_path / "pets/train/cat").iterdir())[:2]
    replaced(a, b)
    assert source.load().sha256 != first.sha256 and opened == [a]
    (index,) = (tmp_path / "cache").glob("files-*.json")
    for content in ("[]", "42", "{", '{"train/cat/0.png": 3}'):
        index.write_text(content)
        source.load()


def test_a_picture_of_a_published_set_and_its_class_names_are_watched_too(tmp_path):
    layouts.make_tiny_imagenet(tmp_path)
    first = TinyImageNet(root=str(tmp_path)).load()
    a, b = sorted((tmp_path / "tiny-imagenet-200/train/n00000000/images").iterdir())[:2]
    shutil.copyfile(b, a)
    assert TinyImageNet(root=str(tmp_path)).load().sha256 != first.sha256
    layouts.make_imagenet64(tmp_path)
    assert ImageNet64(root=str(tmp_path)).load().class_names[0] == "kit fox"
    names = tmp_path / "imagenet64/map_clsloc.txt"
    names.write_text(names.read_text().replace("kit_fox", "red_fox"))
    assert ImageNet64(root=str(tmp_path)).load().class_names[0] == "red fox"


def test_a_picture_that_changes_while_it_is_decoded_is_not_kept(tmp_path, monkeypatch):
    layouts.make_folder(tmp_path / "pets")
    source, decode = ImageFolder(path=str(tmp_path / "pets")), ImageFolder._decode

    def and_change(self, *about):
        decoded = decode(self, *about)
        Image.new("RGB", (12, 12)).save(tmp_path / "pets/train/cat/0.png")
        return decoded

    monkeypatch.setattr(ImageFolder, "_decode", and_change)
    with pytest.raises(IntegrityError, match="changed while it was read"):
        source.load()
    assert not list((tmp_path / "cache").glob("*.safetensors"))


def two_cached(tmp_path):
    """Two data sets of one name and their entries in the cache."""
    sources = []
    for place in ("a", "b"):
        images, labels = layouts.labelled(2, 6, (12, 12, 3), len(sources))
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            folder = tmp_path / place / "pets" / f"class {label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{number}.png")
        sources.append(ImageFolder(path=str(tmp_path / place / "pets")))
    hashes = [source.load().sha256 for source in sources]
    records = sorted((tmp_path / "cache").glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
    return sources, hashes, records


def test_a_cache_entry_of_other_data_is_never_served(tmp_path):
    sources, hashes, records = two_cached(tmp_path)
    for ending in (".json", ".safetensors"):
        shutil.copy(records[0].with_suffix(ending), records[1].with_suffix(ending))
    assert [source.load().sha256 for source in sources] == hashes
    values = json.loads(records[0].read_text())
    records[0].write_text(json.dumps(values | {"facts": {"class_names": ["cat", "dog"], "notes": []}}))
    assert sources[0].load().class_names == ("class 0", "class 1")


@pytest.mark.parametrize("ending", [".json", ".safetensors"])
@pytest.mark.parametrize(
    "content", ["[]", "42", "null", "{}", '{"sha256": 3}', '"x"', "", "[" * 100_000, "\ud800", "folder", "pipe"]
)
def test_a_damaged_cache_entry_is_made_anew(tmp_path, ending, content):
    sources, hashes, records = two_cached(tmp_path)
    entry = records[0].with_suffix(ending)
    entry.unlink()
    if content in ("folder", "pipe"):
        put(entry, content)
    else:
        entry.write_bytes(content.encode("utf-8", "surrogatepass"))
    assert sources[0].load().sha256 == hashes[0]


# -- arrays ---------------------------------------------------------------------------------------------------------

IMAGES_24, LABELS_24 = layouts.labelled(3, 8, (9, 9), 0)


def arrays(tmp_path, ending="npz", **changed):
    path = tmp_path / f"mine.{ending}"
    content = {"images": IMAGES_24, "labels": LABELS_24, **changed}
    if ending == "npz":
        numpy.savez(path, **content)
    else:
        save_file(content, path)
    return Arrays(path=str(path))


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "uint32", "uint64", "int16", "bool"])
def test_labels_of_any_whole_numbers_are_read(tmp_path, ending, dtype):
    labels = (LABELS_24 % 2).astype(dtype)
    splits = arrays(tmp_path, ending, labels=labels).load()
    reference = arrays(tmp_path, ending, labels=LABELS_24 % 2).load()
    assert splits.sha256 == reference.sha256 and splits.num_classes == 2


@pytest.mark.parametrize(
    "change",
    [
        {"images": numpy.asfortranarray(IMAGES_24)},
        {"labels": LABELS_24.astype(">i8")},
        {"labels": LABELS_24.astype(">u2")},
        {"images": IMAGES_24[::-1][::-1], "labels": numpy.repeat(LABELS_24, 2)[::2]},
    ],
)
def test_other_layouts_of_the_same_numbers_are_the_same_data(tmp_path, change):
    assert arrays(tmp_path, **change).load().sha256 == arrays(tmp_path).load().sha256


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": IMAGES_24[:0], "labels": LABELS_24[:0]}, "images are"),
        ({"images": numpy.uint8(3)}, "images are"),
        ({"labels": numpy.int64(3)}, "labels are"),
        ({"labels": LABELS_24[:, None, None]}, "labels are"),
        ({"labels": LABELS_24[None]}, "labels are"),
        (
            {"labels": numpy.eye(3, dtype="uint8")[LABELS_24 % 3]},
            "labels are torch.uint8 (24, 3): 3 labels for each image",
        ),
        ({"labels": LABELS_24[:, None] * 1.0}, "labels are"),
        ({"images": numpy.zeros((24, 0, 0), "uint8")}, "images are"),
        ({"images": numpy.zeros((24, 3, 0, 5), "uint8")}, "images are"),
        ({"images": IMAGES_24.astype("float16")}, "images are"),
        ({"images": IMAGES_24.astype("complex64")}, "images are"),
        ({"images": IMAGES_24.astype("longdouble")}, "images are"),
        ({"images": IMAGES_24.astype("int16")}, "images are"),
        ({"images": IMAGES_24 > 99}, "images are"),
        ({"labels": LABELS_24 * 1.0}, "labels are"),
        ({"labels": LABELS_24.astype("uint64") + 2**63}, "go up to 9,223,372,036,854,77"),
        ({"labels": LABELS_24 + 10**9}, "go up to 1,000,000,002"),
        ({"labels": LABELS_24 + 30}, "at most 23"),
        ({"labels": LABELS_24 - 2}, "go down to -2"),
        ({"labels": LABELS_24 * 5}, "has 0 training images"),
        ({"labels": numpy.array([[1, "x"]] * 12, object)}, "no numbers"),
        ({"labels": numpy.array(["cat"] * 24)}, "no numbers"),
        ({"labels": LABELS_24.astype("datetime64[s]")}, "no numbers"),
        ({"labels": numpy.zeros(24, [("a", "i4"), ("b", "i4")])}, "no numbers"),
        ({"labels": numpy.full(24, numpy.nan)}, "labels are"),
    ],
)
def test_arrays_of_other_kinds_are_refused(tmp_path, changed, message):
    with pytest.raises(IntegrityError) as caught:
        arrays(tmp_path, **changed).load()
    assert message in str(caught.value)


def test_test_labels_beyond_the_training_images_are_refused(tmp_path):
    path = tmp_path / "mine.npz"
    parts = {"train_images": IMAGES_24, "train_labels": LABELS_24, "test_images": IMAGES_24}
    numpy.savez(path, **parts, test_labels=LABELS_24 + 10**8)
    with pytest.raises(IntegrityError, match="test_labels go up to 100,000,002"):
        Arrays(path=str(path)).load()
    numpy.savez(path, **parts)
    with pytest.raises(IntegrityError, match="has no test_labels, only"):
        Arrays(path=str(path)).load()


def test_other_arrays_in_the_file_are_not_read(tmp_path):
    assert arrays(tmp_path, more=numpy.array([object()])).load().sha256 == arrays(tmp_path).load().sha256


def header(shape, dtype="|u1", extra=""):
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, {extra}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def npz(tmp_path, members, compression=zipfile.ZIP_DEFLATED):
    path = tmp_path / "mine.npz"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def bomb(tmp_path):
    """A few MB that say they unpack to 4 GiB of zeros."""
    path = tmp_path / "mine.npz"
    npz(tmp_path, [("images.npy", header((2**16, 2**8, 2**8)) + bytes(2**24))])
    content = bytearray(path.read_bytes())
    end = content.rindex(b"PK\x01\x02")
    content[end + 24 : end + 28] = struct.pack("<I", 2**32 - 2)  # the size as the directory says it
    path.write_bytes(content)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.npy", header((2,)) + b"\0\1")
    return path


ARCHIVES = {
    "nothing in it": lambda t: npz(t, []),
    "no archive": lambda t: write(t, b"words"),
    "empty": lambda t: write(t, b""),
    "pickle": lambda t: write(t, b"\x80\x04cos\nsystem\n."),
    "bare npy": lambda t: write(t, header((2,)) + b"\0\1"),
    "huge shape": lambda t: npz(t, [("images.npy", header((2**40, 2**40))), ("labels.npy", b"")]),
    "negative shape": lambda t: npz(t, [("images.npy", header((-3, 4, 4)) + bytes(48)), ("labels.npy", b"")]),
    "short": lambda t: npz(t, [("images.npy", header((3, 4, 4)) + bytes(40)), ("labels.npy", b"")]),
    "long": lambda t: npz(t, [("images.npy", header((3, 4, 4)) + bytes(50)), ("labels.npy", b"")]),
    "no header": lambda t: npz(t, [("images.npy", b"words"), ("labels.npy", b"")]),
    "brackets": lambda t: npz(t, [("images.npy", header("(" * 9000)), ("labels.npy", b"")]),
    "code in header": lambda t: npz(t, [("images.npy", header("exit()")), ("labels.npy", b"")]),
    "wide strings": lambda t: npz(t, [("images.npy", header((2,), "<U900000000")), ("labels.npy", b"")]),
    "no dtype": lambda t: npz(t, [("images.npy", header((2,), "q")), ("labels.npy", b"")]),
    "two of one name": lambda t: npz(t, [("images.npy", b""), ("images", b""), ("labels.npy", b"")]),
    "long names": lambda t: npz(t, [("x\n[red]" * 9000, b""), *((f"n{i}", b"") for i in range(1000))]),
    "cut": lambda t: cut(Path(arrays(t).path)),
    "flipped": lambda t: flipped(Path(arrays(t).path)),
    "bomb": bomb,
}


def write(tmp_path, content):
    (tmp_path / "mine.npz").write_bytes(content)
    return tmp_path / "mine.npz"


def cut(path):
    path.write_bytes(path.read_bytes()[:-300])
    return path


def flipped(path):
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", ARCHIVES)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_that_lie_or_are_damaged_are_refused(tmp_path, kind):
    path = ARCHIVES[kind](tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(IntegrityError) as caught:
        Arrays(path=str(path)).load()
    assert str(path) in str(caught.value) and len(str(caught.value)) < 2000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB


def test_arrays_larger_than_memory_are_not_begun(tmp_path, monkeypatch):
    source = arrays(tmp_path)
    monkeypatch.setattr("distributed_dd.data.reading.memory_left", lambda: 1000)
    with pytest.raises(IntegrityError, match="GiB of memory"):
        source.load()
    with pytest.raises(IntegrityError, match="GiB of memory"):
        arrays(tmp_path, "safetensors").load()
    layouts.make_folder(tmp_path / "pets")
    with pytest.raises(IntegrityError, match="12 pictures of its size"):
        ImageFolder(path=str(tmp_path / "pets")).load()


SAFETENSORS = {
    "offsets": {"images": {"dtype": "U8", "shape": [2, 4, 4], "data_offsets": [0, 10**9]}},
    "shape": {"images": {"dtype": "U8", "shape": [2**40, 2**40], "data_offsets": [0, 32]}},
    "dtype": {"images": {"dtype": "X9", "shape": [2, 4, 4], "data_offsets": [0, 32]}},
    "list": [1, 2],
}


@pytest.mark.parametrize("kind", [*SAFETENSORS, "length", "words", "empty"])
def test_safetensors_with_a_header_that_lies_are_refused(tmp_path, kind):
    path = tmp_path / "mine.safetensors"
    text = json.dumps(SAFETENSORS.get(kind, {})).encode()
    length = 2**60 if kind == "length" else len(text)
    content = {"words": b"words", "empty": b""}.get(kind, struct.pack("<Q", length) + text + bytes(32))
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="cannot be read"):
        Arrays(path=str(path)).load()


# -- pictures -------------------------------------------------------------------------------------------------------


def folder_of(tmp_path, **pictures):
    """A folder of two classes, six pictures each, and ``pictures`` in the first."""
    layouts.make_folder(tmp_path / "pets", splits=(".",))
    for name, content in pictures.items():
        (tmp_path / "pets" / "cat" / name.replace("_", ".")).write_bytes(content)
    return tmp_path / "pets"


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png_of_size(width, height):
    """A PNG whose header says so."""
    import zlib

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    parts = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


NOISE = Image.fromarray(layouts.labelled(1, 1, (12, 12, 3), 7)[0][0])
UNREADABLE = {
    "truncated png": (encoded(NOISE)[:-60], ""),
    "truncated jpeg": (encoded(NOISE, "JPEG")[:-60], "truncated"),
    "bomb": (png_of_size(60_000, 60_000), "decompression bomb"),
    "huge": (png_of_size(2**31 - 1, 2**31 - 1), ""),
    "empty": (b"", "no picture"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 12 12\n%%EndComments\nshowpage\n", "no picture"),
    "floats": (encoded(Image.new("F", (12, 12), 0.5), "TIFF"), "no known range"),
    "32 bits": (encoded(Image.new("I", (12, 12), 10**6), "TIFF"), "no known range"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_pictures_that_cannot_be_read_are_named_with_the_reason(tmp_path, kind):
    content, reason = UNREADABLE[kind]
    path = folder_of(tmp_path, odd_png=content)
    with pytest.raises(IntegrityError) as caught:
        ImageFolder(path=str(path)).load()
    assert "odd.png: 1 of 13 images cannot be read" in str(caught.value) and reason in str(caught.value)
    splits = ImageFolder(path=str(path), unreadable="skip").load()
    assert "odd.png" in splits.notes[0]
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 12


def test_a_picture_that_is_no_file_is_unreadable(no_file, tmp_path):
    kind, words = no_file
    path = folder_of(tmp_path)
    put(path / "cat" / "odd.png", kind)
    if kind == "folder":  # pictures may lie deeper
        assert ImageFolder(path=str(path)).load().num_classes == 2
        return
    with pytest.raises(IntegrityError, match=words):
        ImageFolder(path=str(path)).load()


def test_links_are_followed_and_circles_end(tmp_path):
    path = folder_of(tmp_path)
    reference = ImageFolder(path=str(path)).load()
    linked = tmp_path / "linked" / "pets"
    linked.mkdir(parents=True)
    for name in ("cat", "dog"):
        (linked / name).mkdir()
        (linked / name / "part").symlink_to(path / name)
        (linked / name / "round").symlink_to(linked / name)
        (linked / name / "again").symlink_to(path / name)
    assert ImageFolder(path=str(linked)).load().sha256 == reference.sha256
    (linked / "cat" / "part").unlink()
    (linked / "cat" / "again").unlink()
    (linked / "cat" / "part").symlink_to(tmp_path / "unmounted")
    with pytest.raises(IntegrityError, match="leads nowhere"):
        ImageFolder(path=str(linked)).load()


def test_names_that_are_no_utf8_or_odd_are_shown_and_kept(tmp_path):
    path = folder_of(tmp_path)
    os.rename(path / "cat", os.path.join(os.fsencode(path), b"b\xe4r"))
    shutil.move(path / "dog", path / "$x^2$ [red]{} \\ \n line")
    splits = ImageFolder(path=str(path)).load()
    assert splits.class_names == ("$x^2$ [red]{} \\ \n line", "b\\udce4r")
    json.dumps(splits.class_names).encode()
    "".join(splits.class_names).encode()
    preview_png(None, torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), splits.class_names, "of $a [b] {c}")
    broken = os.path.join(os.fsencode(path), b"b\xe4r", b"caf\xe9.png")
    Path(os.fsdecode(broken)).write_bytes(b"x")
    with pytest.raises(IntegrityError) as caught:
        ImageFolder(path=str(path)).load()
    str(caught.value).encode()
    ImageFolder(path=str(path), unreadable="skip").load().notes[0].encode()


def test_folders_without_a_picture_in_a_class_are_refused(tmp_path):
    path = folder_of(tmp_path)
    (path / "cow").mkdir()
    with pytest.raises(IntegrityError, match="class 'cow' has 0 training images"):
        ImageFolder(path=str(path)).load()
    loose = tmp_path / "loose"
    loose.mkdir()
    NOISE.save(loose / "0.png")
    with pytest.raises(MissingInputError, match="in folders of classes"):
        ImageFolder(path=str(loose)).load()
    for name in ("cat", "dog"):
        (loose / name).mkdir()
        (loose / name / "0.png").write_bytes(b"x")
    with pytest.raises(IntegrityError, match="2 of 2 images cannot be read"):
        ImageFolder(path=str(loose), unreadable="skip").load()


@pytest.mark.parametrize(
    "names", [("Train", "Test"), ("training", "testing"), ("seg_train", "seg_test"), ("TRAIN", "val")]
)
def test_splits_of_other_names_are_not_taken_for_classes(tmp_path, names):
    layouts.make_folder(tmp_path / "pets", splits=names)
    with pytest.raises(ConfigError, match="named as splits"):
        ImageFolder(path=str(tmp_path / "pets")).load()


def test_what_macos_packs_beside_pictures_is_none(tmp_path):
    path = folder_of(tmp_path)
    reference = ImageFolder(path=str(path)).load()
    (path / "__MACOSX").mkdir()
    for folder in ("__MACOSX", "cat"):
        (path / folder / "._0.png").write_bytes(b"Mac OS X")
    assert ImageFolder(path=str(path)).load().sha256 == reference.sha256


def seen(tmp_path, image, form="PNG", **options):
    """How a picture is read, beside eleven plain ones of its size, and the remarks."""
    from distributed_dd.data.pictures import Reading, read_pictures

    path = tmp_path / "one.picture"
    path.write_bytes(encoded(image, form, **options))
    read = read_pictures([path], Reading(grey=options.pop("grey", False)))
    return read.images[0].permute(1, 2, 0).numpy(), read.notes


def test_pictures_are_read_as_they_are_shown(tmp_path):
    plain = numpy.asarray(NOISE)
    assert numpy.array_equal(seen(tmp_path, NOISE)[0], plain)
    # The shape of an icon may lie in its transparency alone.
    alpha = numpy.zeros((12, 12, 4), "uint8")
    alpha[3:6, :, 3] = 255
    pixels, notes = seen(tmp_path, Image.fromarray(alpha, "RGBA"))
    assert (pixels[3:6] == 0).all() and (pixels[6:] == 255).all() and "on white" in notes[0]
    grey, _ = seen(tmp_path, Image.fromarray(alpha[..., 2:], "LA"))
    assert numpy.array_equal(grey, pixels)
    opaque = Image.fromarray(numpy.dstack([plain, numpy.full((12, 12), 255, "uint8")]), "RGBA")
    assert numpy.array_equal(seen(tmp_path, opaque)[0], plain) and not seen(tmp_path, opaque)[1]
    palette = Image.fromarray(alpha[..., 3] // 255, "P")
    palette.putpalette([9, 9, 9, 70, 80, 90])
    assert seen(tmp_path, palette)[0][4, 4].tolist() == [70, 80, 90]
    assert seen(tmp_path, palette, transparency=0)[0][0, 0].tolist() == [255] * 3
    # A clipped 16-bit picture would be white wherever it is above 255.
    deep = numpy.arange(144).reshape(12, 12).astype("uint16") * 450
    for form in ("PNG", "TIFF", "PPM"):
        pixels, notes = seen(tmp_path, Image.fromarray(deep), form)
        assert numpy.abs(pixels[..., 0] - deep / 257).max() <= 0.5 and "16 bits" in notes[0]
    tall = Image.fromarray(plain[:, :6])
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = tall.transpose(Image.Transpose.ROTATE_90)
    pixels, notes = seen(tmp_path, turned, exif=exif)
    assert numpy.array_equal(pixels, plain[:, :6]) and "EXIF" in notes[0]
    assert seen(tmp_path, NOISE.convert("CMYK"), "JPEG")[0].shape == (12, 12, 3)
    assert set(numpy.unique(seen(tmp_path, NOISE.convert("1"))[0])) <= {0, 255}
    assert seen(tmp_path, Image.new("RGB", (1, 1)))[0].shape == (1, 1, 3)
    assert seen(tmp_path, Image.new("RGB", (20_000, 2)))[0].shape == (2, 20_000, 3)


def test_a_strip_is_not_blown_up_to_be_cropped(tmp_path):
    path = folder_of(tmp_path, strip_png=encoded(Image.new("RGB", (20_000, 1))))
    with pytest.raises(IntegrityError, match="too long a strip"):
        ImageFolder(path=str(path), size=128).load()


# -- published files --------------------------------------------------------------------------------------------------


def idx(*shape, magic=0x0800, content=None):
    count = int(numpy.prod(shape))
    return struct.pack(f">{len(shape) + 1}I", magic + len(shape), *shape) + (
        bytes(count) if content is None else content
    )


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("train-images-idx3-ubyte", b""),
        ("train-images-idx3-ubyte", b"\0\0"),
        ("train-images-idx3-ubyte", idx(60, 28, 28)[:-100]),
        ("train-images-idx3-ubyte", idx(2**31, 28, 28, content=bytes(784))),
        ("train-images-idx3-ubyte", idx(60, 28, 28, magic=0x0D00, content=bytes(4 * 60 * 784))),
        ("train-images-idx3-ubyte", idx(60, 8, 8)),
        ("train-images-idx3-ubyte", idx(60)),
        ("train-images-idx3-ubyte", idx(59, 28, 28)),
        ("train-images-idx3-ubyte", idx(0, 28, 28)),
        ("train-labels-idx1-ubyte", idx(60, content=bytes([77] * 60))),
        ("train-labels-idx1-ubyte", idx(60, magic=0x7700)),
        ("t10k-labels-idx1-ubyte.gz", gzip.compress(idx(20))[:-9]),
        ("t10k-labels-idx1-ubyte.gz", b"no gzip"),
        ("t10k-labels-idx1-ubyte.gz", gzip.compress(bytes(10**8))),
    ],
)
def test_idx_files_that_lie_are_refused(tmp_path, file, content):
    layouts.make_mnist(tmp_path, packed=True)
    (tmp_path / "MNIST" / "raw" / file).write_bytes(content)
    with pytest.raises(IntegrityError):
        MNIST(root=str(tmp_path)).load()


def test_matlab_files_that_lie_are_refused(warm_readers, tmp_path):
    from scipy.io import savemat

    layouts.make_svhn(tmp_path)
    file = tmp_path / "SVHN" / "test_32x32.mat"
    intact = file.read_bytes()
    for damaged in (intact[:200], intact[:-5000], intact[:128] + b"\xff" * 400):
        file.write_bytes(damaged)
        with pytest.raises(IntegrityError, match=r"test_32x32.mat: is not SVHN"):
            svhn._read(file)
    images, labels = numpy.zeros((32, 32, 3, 20), "uint8"), numpy.arange(20)[:, None] % 10 + 1
    for content in (
        {},
        {"X": images},
        {"X": images * 1.0, "y": labels},
        {"X": images, "y": labels[:3]},
        {"X": images, "y": labels + 5},
        {"X": images, "y": labels + 0.5},
        {"X": images, "y": labels * numpy.nan},
    ):
        savemat(file, content)
        with pytest.raises(IntegrityError, match=r"test_32x32.mat: is not SVHN"):
            svhn._read(file)


def test_a_matlab_file_that_crashes_its_reader_is_refused(tmp_path, monkeypatch):
    """As some damaged ones do: with a segmentation fault."""
    layouts.make_svhn(tmp_path)
    code = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"]
    monkeypatch.setattr("distributed_dd.data.confined.child_python", lambda module, arguments: code)
    with pytest.raises(IntegrityError, match="the reader died"):
        SVHN(root=str(tmp_path)).load()


def test_text_files_that_lie_are_refused(tmp_path):
    layouts.make_tiny_imagenet(tmp_path)
    top = tmp_path / "tiny-imagenet-200"
    for name, content in (
        ("wnids.txt", b"\xff\xfe\x00"),
        ("wnids.txt", b"../../elsewhere"),
        ("val/val_annotations.txt", b"../../x.JPEG\tn00000000\t0\n"),
        ("val/val_annotations.txt", b"val_0.JPEG\tn99\t0\n"),
    ):
        intact = (top / name).read_bytes()
        (top / name).write_bytes(content)
        with pytest.raises(IntegrityError):
            TinyImageNet(root=str(tmp_path)).load()
        (top / name).write_bytes(intact)
    layouts.make_imagenet64(tmp_path)
    (tmp_path / "imagenet64/map_clsloc.txt").write_text("n1 one kit_fox\n")
    with pytest.raises(IntegrityError, match="table of id"):
        ImageNet64(root=str(tmp_path)).load()


def test_a_download_that_breaks_off_leaves_nothing_that_is_read(warm_readers, tmp_path, monkeypatch):
    root = tmp_path / "data"

    def broken(self, part):
        layouts.make_svhn(part)
        (part / "SVHN" / "train_32x32.mat").write_bytes(b"half of it")
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(SVHN, "download_to", broken)
    with pytest.raises(UserError, match="svhn cannot be fetched: reset by peer"):
        SVHN(root=str(root), download=True).load()
    assert not list(root.iterdir())
    monkeypatch.setattr(SVHN, "download_to", lambda self, part: layouts.make_svhn(part))
    assert SVHN(root=str(root), download=True).load().num_classes == 10
    assert [entry.name for entry in root.iterdir()] == ["SVHN"]


# -- .pt files --------------------------------------------------------------------------------------------------------


def saved(tmp_path, value, name="one.pt"):
    torch.save(value, tmp_path / name)
    return tmp_path / name


def nested(levels):
    value = [torch.zeros(1)]
    for _ in range(levels):
        value = [value]
    return value


def doubled(levels):
    value = [torch.zeros(1)]
    for _ in range(levels):
        value = [value] * 16
    return value


def circle():
    value: list = [torch.zeros(1)]
    value.append(value)
    return value


def packed(path):
    """The same archive, its zeros deflated."""
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


PT = {
    "many levels": lambda t: saved(t, nested(200)),
    "circle": lambda t: saved(t, circle()),
    "expanded": lambda t: saved(t, torch.zeros(1).expand(2**33)),
    "shared": lambda t: saved(t, [torch.zeros(2**22).expand(100, -1)] * 10),
    "empty list": lambda t: saved(t, [[[torch.zeros(1)]], []]),
    "words": lambda t: saved(t, ["x" * 10_000 + "\n[red]\ud800"]),
    "number": lambda t: saved(t, 10**40),
    "sparse": lambda t: saved(t, torch.zeros(3, 3).to_sparse()),
    "not a file of torch": lambda t: write(t, b"words" * 100),
}


@pytest.mark.parametrize("kind", PT)
def test_pt_files_that_would_fill_memory_or_never_end_are_refused(warm_readers, tmp_path, kind):
    with pytest.raises(IntegrityError, match="is refused") as caught:
        read_pt(PT[kind](tmp_path))
    assert len(str(caught.value)) < 1000 and "Traceback" not in str(caught.value)


def test_lists_that_double_and_double_are_refused(monkeypatch):
    monkeypatch.setattr(foreign, "MOST_TENSORS", 1000)
    with pytest.raises(ValueError, match="more than 1,000 tensors"):
        foreign._tensors(doubled(8))


def test_a_pt_file_that_unpacks_to_far_more_is_refused(tmp_path):
    path = packed(saved(tmp_path, torch.zeros(2**26)))
    assert path.stat().st_size < 2**20
    code = (
        "import sys; from distributed_dd.data import confined; from distributed_dd.trajectories import foreign;"
        "confined.SPARE_MEMORY = 2**26;"
        "sys.exit(foreign.main(*sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(tmp_path / "out")], capture_output=True, text=True
    )
    assert done.returncode == 3 and "more memory than a file" in done.stdout


def test_a_reader_that_does_not_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("distributed_dd.data.confined.SECONDS", 0.01)
    with pytest.raises(IntegrityError, match="not read in"):
        read_pt(saved(tmp_path, torch.zeros(3)))


def test_a_pt_file_beside_hostile_modules_is_read_and_they_are_not(tmp_path, monkeypatch):
    for name in ("torch", "safetensors", "json", "sitecustomize", "numpy", "distributed_dd"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert read_pt(saved(tmp_path, torch.arange(3)))["top"].tolist() == [0, 1, 2]
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def quick(monkeypatch):
    """The reader without a process of its own, for many small files."""

    def read(path):
        try:
            return foreign._tensors(torch.load(path, weights_only=True))
        except ValueError as error:
            raise IntegrityError(str(path), f"is refused: {error}") from None

    for module in ("importing", "published_sets.pt_files"):
        monkeypatch.setattr(f"distributed_dd.evaluation.{module}.read_pt", read)


class Quiet:
    """Progress that nobody sees."""

    def say(self, text):
        pass

    def bar(self, what, total):
        from contextlib import nullcontext

        class Counter:
            def advance(self, note=""):
                pass

        return nullcontext(Counter())


def set_in(folder):
    """The set of 2 x 2 images of two classes that lies there."""
    one = torch.ones(1, 1, 1)
    nothing = Images(torch.zeros(0, 1, 2, 2), torch.zeros(0, dtype=torch.long))
    splits = Splits(name="x", class_names=("0", "1"), train=nothing, validation=nothing, test=nothing, sha256="")
    foreign = read_published(folder, Wanted(image_shape=(1, 2, 2), num_classes=2))
    return fit_to(foreign, SetReading(), splits, Fitted(0 * one, one, one), lambda line: None).tensors


def checkpoints(change=lambda values: values):
    return [[[change(torch.randn(2, 2)), torch.randn(2)] for _ in range(3)] for _ in range(2)]


@pytest.mark.parametrize(
    ("buffer", "message"),
    [
        ([], "empty list"),
        ([[], []], "empty list"),
        ([[[]]], "empty list"),
        (checkpoints(lambda w: w * float("nan")), "parameter 0 holds numbers that are not finite"),
        (checkpoints(lambda w: (w + 1e6).double() * 1e300), "not finite"),
        (checkpoints(lambda w: w.long()), "parameter 0 is torch.int64"),
        (checkpoints(lambda w: w.to(torch.complex64)), "parameter 0 is torch.complex64"),
        (checkpoints(lambda w: w[:1]), "parameter 0 has shape (1, 2)"),
        (checkpoints(lambda w: 3.0), "parameter 0 has shape ()"),
        (checkpoints()[0], "holds a tensor at place"),
        (torch.randn(2, 3, 6), "holds a tensor at place"),
        ([*checkpoints(), checkpoints()[0][:2]], "trajectory 2 has 2 checkpoints, others have 3"),
    ],
)
def test_buffers_of_other_numbers_are_refused(quick, tmp_path, buffer, message):
    path = saved(tmp_path, buffer, "replay_buffer_0.pt")
    with pytest.raises(IntegrityError) as caught:
        import_experts([path], MLP(), torch.nn.Linear(2, 2), tmp_path / "store", Quiet())
    assert message in str(caught.value)
    assert not list((tmp_path / "store").glob("*/manifest.json"))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({IMAGES: torch.zeros(4, 1, 2, 2, dtype=torch.int32)}, IMAGES),
        ({IMAGES: torch.randn(4, 1, 2, 3)}, IMAGES),
        ({IMAGES: torch.zeros(4, 1, 2, 2, dtype=torch.complex64)}, IMAGES),
        ({IMAGES: torch.full((4, 1, 2, 2), 1e300, dtype=torch.float64)}, IMAGES),
        ({IMAGES: torch.zeros(0, 1, 2, 2), LABELS: torch.zeros(0, 2)}, IMAGES),
        ({IMAGES: torch.tensor(1.0)}, IMAGES),
        ({IMAGES: [torch.zeros(1), torch.zeros(1)]}, IMAGES),
        ({LABELS: torch.eye(2).repeat(2, 1).long()}, LABELS),
        ({LABELS: torch.full((4, 2), float("inf"))}, LABELS),
        ({LABELS: torch.tensor([0.0, 1.0, 0.0, 1.0])}, LABELS),
        ({LABELS: torch.tensor([0, 1, 0, 2**40])}, LABELS),
        ({LABELS: torch.tensor([], dtype=torch.long)}, LABELS),
        ({LABELS: torch.zeros(4, 3)}, LABELS),
        ({RATE: torch.tensor(float("nan"))}, RATE),
        ({RATE: torch.zeros(10**6)}, RATE),
        ({RATE: torch.tensor(1 + 1j)}, RATE),
        ({RATE: []}, RATE),
    ],
)
def test_sets_of_other_numbers_are_refused(quick, tmp_path, change, where):
    content = {IMAGES: torch.randn(4, 1, 2, 2), LABELS: torch.tensor([0, 0, 1, 1]), RATE: torch.tensor(0.1)} | change
    for name, value in content.items():
        saved(tmp_path, value, name)
    with pytest.raises(UserError) as caught:
        set_in(tmp_path)
    assert where in caught.value.where and len(str(caught.value)) < 1000


def test_a_set_in_double_precision_or_with_small_class_numbers_is_taken(quick, tmp_path):
    saved(tmp_path, torch.randn(4, 1, 2, 2, dtype=torch.float64), IMAGES)
    saved(tmp_path, torch.tensor([0, 1, 0, 1], dtype=torch.uint16), LABELS)
    tensors = set_in(tmp_path)
    assert tensors["images"].dtype == torch.float32 and tensors["classes"].tolist() == [0, 0, 1, 1]


# -- names in what is written --------------------------------------------------------------------------------


def test_every_class_has_a_folder_of_its_own_inside_the_target():
    names = [
        "..",
        ".",
        "",
        "a/b",
        "a_b",
        "Cat",
        "cat",
        "CAT",
        "/etc",
        "x" * 10_000,
        "x" * 9_999,
        "a\nb",
        "~",
        "cat-class6",
    ]
    folders = folders_of([*names, "cat"])
    assert len({folder.casefold() for folder in folders}) == len(names) + 1
    for folder in folders:
        assert folder not in ("", ".", "..") and "/" not in folder and len(folder.encode()) < 200
    assert folders_of(["cat", "dog"]) == ["cat", "dog"]


@pytest.mark.parametrize(
    "name", ["$", "a$b$c", "$x^2$ [red]100%", "\\$", "x" * 10_000, "a\nb\0", "{}", "", "猫", "\ud800"]
)
def test_any_name_is_drawn(name):
    png = preview_png(None, torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), (name, "plain"), name, name)
    with Image.open(io.BytesIO(png)) as picture:
        assert max(picture.size) < 5000


def test_a_regular_file_may_be_reached_by_links(tmp_path):
    (tmp_path / "real").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("real")
    assert check_regular(tmp_path / "link") == 3


def distilled_set(class_names, per_class=2):
    """A set of 2x2 images, those of class k of brightness k."""
    count = len(class_names) * per_class
    classes = torch.arange(len(class_names)).repeat_interleave(per_class)
    one = torch.ones(1, 1, 1)
    tensors = {
        "images": (classes / 100).view(-1, 1, 1, 1).expand(count, 1, 2, 2).contiguous(),
        "labels": torch.eye(len(class_names))[classes],
        "classes": classes,
        **{f"preprocessing.{name}": value for name, value in Fitted(one * 0, one, one).tensors().items()},
    }
    manifest = {"class_names": list(class_names), "learning_rate": 0.1, "dataset": {"name": "grey"}, "method": "none"}
    return DistilledSet(tensors, manifest, "soft")


def test_no_picture_is_lost_or_written_elsewhere(tmp_path):
    names = ["..", "a/b", "a_b", "Cat", "cat", "../../up", "/abs"]
    target = tmp_path / "deep" / "exported"
    as_images(distilled_set(names), target)
    files = sorted(target.rglob("*.png"))
    assert len(files) == 2 * len(names) and sorted(tmp_path.rglob("*.png")) == files
    values = [int(numpy.asarray(Image.open(file)).max()) for file in files]
    assert sorted(values) == sorted(round(2.55 * number) for number in range(len(names)) for _ in range(2))
    as_images(distilled_set(names), target)  # the same set again
    with pytest.raises(UserError, match="no picture of this set"):
        as_images(distilled_set(names, per_class=1), target)
    as_npz(distilled_set(names), target)
    with numpy.load(target / "distilled.npz") as content:
        assert content["class_names"].tolist() == names
