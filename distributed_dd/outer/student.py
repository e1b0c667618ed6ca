"""The student of methods that unroll its training."""

from typing import Literal, Protocol

import torch

from distributed_dd.learning.chance import generator
from distributed_dd.learning.device import device
from distributed_dd.learning.flat import Student
from distributed_dd.learning.networks import initialised
from distributed_dd.outer.world import World


class TrainsStudents(Protocol):
    """Settings of such a method."""

    @property
    def precision(self) -> Literal["float32", "bf16"]: ...


def student_of(method: TrainsStudents, world: World) -> Student:
    """The network as a pure function, on the device."""
    layers = initialised(world.network, world.image_shape, world.num_classes, generator(world.seed, "layout"))
    return Student(layers, method.precision).to(device(), torch.float32)
