"""Small generated copies of every data set, each in its real layout."""

import gzip
import hashlib
import pickle
import struct
from pathlib import Path

import numpy
from PIL import Image

from distributed_dd.data import DATA_SETS

PER_CLASS = 6


def labelled(num_classes, per_class, shape, seed):
    """Distinct random uint8 images and interleaved labels."""
    rng = numpy.random.default_rng(seed)
    labels = numpy.arange(num_classes * per_class) % num_classes
    return rng.integers(0, 256, (len(labels), *shape), dtype=numpy.uint8), labels.astype("int64")


def idx(path: Path, array, packed):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    content = header + array.astype("uint8").tobytes()
    if packed:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
    else:
        path.write_bytes(content)


def make_mnist(root: Path, folder="MNIST", packed=True):
    for split, per_class, seed in (("train", PER_CLASS, 0), ("t10k", 2, 1)):
        images, labels = labelled(10, per_class, (28, 28), seed)
        idx(root / folder / "raw" / f"{split}-images-idx3-ubyte", images, packed)
        idx(root / folder / "raw" / f"{split}-labels-idx1-ubyte", labels, packed)


def make_cifar(root: Path, monkeypatch, name="CIFAR10", num_classes=10):
    """Pickles, with the generated checksums published in torchvision's table."""
    from torchvision import datasets

    cls = getattr(datasets, name)
    key = "labels" if name == "CIFAR10" else "fine_labels"
    folder = root / cls.base_folder
    folder.mkdir(parents=True)

    def dump(file, value):
        (folder / file).write_bytes(pickle.dumps(value))
        return file, hashlib.md5((folder / file).read_bytes()).hexdigest()

    def batch(file, per_class, seed):
        images, labels = labelled(num_classes, per_class, (3, 32, 32), seed)
        return dump(file, {"data": images.reshape(len(images), -1), key: labels.tolist()})

    train = [batch(file, PER_CLASS, seed) for seed, (file, _) in enumerate(cls.train_list)]
    test = [batch(file, 2, 99) for file, _ in cls.test_list]
    names = [f"class {n}" for n in range(num_classes)]
    _, md5 = dump(cls.meta["filename"], {cls.meta["key"]: names})
    monkeypatch.setattr(cls, "train_list", [list(entry) for entry in train])
    monkeypatch.setattr(cls, "test_list", [list(entry) for entry in test])
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": md5})


def make_svhn(root: Path):
    from scipy.io import savemat

    (root / "SVHN").mkdir(parents=True)
    for split, per_class, seed in (("train", PER_CLASS, 0), ("test", 2, 1)):
        images, labels = labelled(10, per_class, (32, 32, 3), seed)
        content = {"X": images.transpose(1, 2, 3, 0), "y": numpy.where(labels == 0, 10, labels)[:, None]}
        savemat(root / "SVHN" / f"{split}_32x32.mat", content)


def make_tiny_imagenet(root: Path):
    top = root / "tiny-imagenet-200"
    wnids = [f"n{n:08d}" for n in range(3)]
    for folder in ["val/images", *(f"train/{w}/images" for w in wnids)]:
        (top / folder).mkdir(parents=True)
    (top / "wnids.txt").write_text("\n".join(reversed(wnids)))
    (top / "words.txt").write_text("".join(f"{w}\tword {n}, other\n" for n, w in enumerate(wnids)))
    images, labels = labelled(3, PER_CLASS, (64, 64, 3), 0)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(top / f"train/{wnids[label]}/images/{number}.JPEG")
    images, labels = labelled(3, 2, (64, 64, 3), 1)
    lines = []
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(top / f"val/images/val_{number}.JPEG")
        lines.append(f"val_{number}.JPEG\t{wnids[label]}\t0\t0\t62\t62\n")
    (top / "val" / "val_annotations.txt").write_text("".join(lines))


def make_imagenet64(root: Path):
    folder = root / "imagenet64"
    folder.mkdir(parents=True)
    batches = [(f"train_data_batch_{n}.npz", PER_CLASS, n) for n in range(1, 11)]
    for file, per_class, seed in (*batches, ("val_data.npz", 2, 99)):
        images, labels = labelled(3, per_class, (3, 64, 64), seed)
        numpy.savez(folder / file, data=images.reshape(len(images), -1), labels=labels + 1)
    (folder / "map_clsloc.txt").write_text("n1 1 kit_fox\nn2 2 crane\nn3 3 crane\n")


def make_folder(root: Path, names=("cat", "dog"), splits=("train", "test"), size=(12, 12)):
    for seed, split in enumerate(splits):
        images, labels = labelled(len(names), PER_CLASS, (*size, 3), seed)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            folder = root / split / names[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{number}.png")


def make_arrays(path: Path):
    images, labels = labelled(3, PER_CLASS, (9, 9, 3), 0)
    tests, test_labels = labelled(3, 2, (9, 9, 3), 1)
    numpy.savez(path, train_images=images, train_labels=labels, test_images=tests, test_labels=test_labels)


def source_of(kind: str, root: Path, monkeypatch):
    """The data set of ``kind``, generated below ``root`` where it needs files."""
    cls = DATA_SETS.members[kind]
    match kind:
        case "digits":
            return cls()
        case "mnist":
            make_mnist(root)
        case "fashion_mnist":
            make_mnist(root, "FashionMNIST", packed=False)
        case "cifar10":
            make_cifar(root, monkeypatch)
        case "cifar100":
            make_cifar(root, monkeypatch, "CIFAR100", 100)
        case "svhn":
            make_svhn(root)
        case "tiny_imagenet":
            make_tiny_imagenet(root)
        case "imagenet64":
            make_imagenet64(root)
        case "folder":
            make_folder(root / "pets")
            return cls(path=str(root / "pets"))
        case "arrays":
            make_arrays(root / "mine.npz")
            return cls(path=str(root / "mine.npz"))
    return cls(root=str(root))
