"""Real images. To add a data set: write its file here and enter it in the table."""

from distributed_dd.data.arrays import Arrays
from distributed_dd.data.cifar import CIFAR10, CIFAR100
from distributed_dd.data.digits import Digits
from distributed_dd.data.image_folder import ImageFolder
from distributed_dd.data.imagenet64 import ImageNet64
from distributed_dd.data.mnist import MNIST, FashionMNIST
from distributed_dd.data.splits import DataSource, Facts, Images, Splits
from distributed_dd.data.svhn import SVHN
from distributed_dd.data.tiny_imagenet import TinyImageNet
from distributed_dd.data.whitening import PREPROCESSINGS, AlreadyFitted, Fitted, Preprocessing
from distributed_dd.family import Family

DATA_SETS = Family(
    "data",
    {
        "digits": Digits,
        "mnist": MNIST,
        "fashion_mnist": FashionMNIST,
        "cifar10": CIFAR10,
        "cifar100": CIFAR100,
        "svhn": SVHN,
        "tiny_imagenet": TinyImageNet,
        "imagenet64": ImageNet64,
        "folder": ImageFolder,
        "arrays": Arrays,
    },
)

__all__ = [
    "DATA_SETS",
    "PREPROCESSINGS",
    "AlreadyFitted",
    "DataSource",
    "Facts",
    "Fitted",
    "Images",
    "Preprocessing",
    "Splits",
]
