"""The real files, where they are: DISTRIBUTED_DD_DATA=FOLDER pytest tests/data."""

import os
from pathlib import Path

import pytest
import torch

from distributed_dd.data.image_folder import ImageFolder
from distributed_dd.data.mnist import MNIST
from distributed_dd.learning.loop import Recipe, Training, accuracy
from distributed_dd.learning.networks import MLP
from distributed_dd.learning.optimizers import SGD
from tests.conftest import ROOT

DATA = Path(os.environ.get("DISTRIBUTED_DD_DATA", ROOT / "data"))
TRAIN_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


@pytest.mark.skipif(not (DATA / "MNIST").exists(), reason=f"no MNIST in {DATA} (set DISTRIBUTED_DD_DATA)")
def test_mnist_is_mnist():
    """The published class counts, mean and deviation; and a network learns it."""
    splits = MNIST(root=str(DATA), size=28).load()
    targets = torch.cat([splits.train.targets, splits.validation.targets])
    assert torch.bincount(targets).tolist() == TRAIN_COUNTS and len(splits.test) == 10_000
    pixels = torch.cat([splits.train.pixels(), splits.validation.pixels()])
    assert abs(float(pixels.mean()) - 0.1307) < 1e-4 and abs(float(pixels.std()) - 0.3081) < 1e-4
    network = MLP().build((1, 28, 28), 10)
    recipe = Recipe(num_epochs=1, batch_size=64, optimizer=SGD(0.1))
    Training(network, splits.train.pixels(), splits.train.targets, recipe, (0, "t")).run_to_end()
    assert accuracy(network, splits.test.pixels(), splits.test.targets) > 0.8


@pytest.mark.skipif(not (DATA / "cifar10-jpeg").exists(), reason=f"no cifar10-jpeg in {DATA}")
def test_a_folder_of_sixty_thousand_pictures_is_read():
    splits = ImageFolder(path=str(DATA / "cifar10-jpeg")).load()
    assert splits.num_classes == 10 and splits.image_shape == (3, 32, 32)
    assert len(splits.train) + len(splits.validation) == 50_000 and len(splits.test) == 10_000
