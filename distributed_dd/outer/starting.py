"""The images that a set starts from, for methods that need no experts to choose them."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from distributed_dd.family import Family
from distributed_dd.learning.chance import generator
from distributed_dd.learning.classes import hard_logits, random_per_class
from distributed_dd.outer.world import World

KEY = "starting images"


class PlainStart(Protocol):
    """Makes the starting images, class by class."""

    def images(self, world: World) -> tuple[Tensor, Tensor]:
        """Images (n, C, H, W) as networks see them, classes (n,)."""
        ...


@dataclass(frozen=True)
class RealImages:
    """Random real images of each class."""

    def images(self, world: World) -> tuple[Tensor, Tensor]:
        """Without replacement."""
        train = world.real.train
        index = random_per_class(train.targets, world.images_per_class, generator(world.seed, KEY))
        return train.images[index], train.targets[index]


@dataclass(frozen=True)
class Noise:
    """Numbers of a normal distribution, mean 0 and variance 1, as networks see images."""

    def images(self, world: World) -> tuple[Tensor, Tensor]:
        """Equally many of every class."""
        noise = torch.randn(world.num_images, *world.image_shape, generator=generator(world.seed, KEY))
        return noise, torch.arange(world.num_classes).repeat_interleave(world.images_per_class)


PLAIN_STARTS = Family("plain start", {"real": RealImages, "noise": Noise})


def hard_labelled(start: PlainStart, world: World) -> dict[str, Tensor]:
    """A set with the labels of its classes and no learned rate: images, label logits, classes."""
    images, classes = start.images(world)
    return {"images": images, "labels": hard_logits(classes, world.num_classes), "classes": classes}
