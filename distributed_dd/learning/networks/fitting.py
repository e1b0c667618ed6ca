"""Whether a network can be made on this machine and can take its images, found before anything is allocated."""

import warnings
from functools import lru_cache
from typing import Protocol

import psutil
import torch
from torch import nn

from distributed_dd.errors import ConfigError

FLOAT = 4
SMALL = 2**26
"""Bytes of parameters up to which layers are tried with numbers. Shapes alone load much of torch, for seconds."""


class Buildable(Protocol):
    """A configuration that builds layers."""

    def __hash__(self) -> int: ...

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module: ...


@lru_cache(maxsize=64)
def check_fits(network: Buildable, image_shape: tuple[int, int, int], num_classes: int, takes_images: bool) -> None:
    """Refuse a network whose parameters this machine's memory does not hold, or that is too deep for its images.

    Args:
        takes_images: whether images (B, C, H, W) go in; a generator takes noise.

    Raises:
        ConfigError: such a network.
    """
    kind = type(network).__name__
    with torch.device("meta"), torch.no_grad(), warnings.catch_warnings():  # shapes alone
        warnings.simplefilter("ignore")
        layers = network.build(image_shape, num_classes)
        num_bytes = FLOAT * sum(parameter.numel() for parameter in layers.parameters())
        total = psutil.virtual_memory().total
        if num_bytes > total:
            raise ConfigError(
                "network",
                f"the parameters of {kind} take {num_bytes / 2**30:,.1f} GiB",
                allowed=f"the {total / 2**30:,.1f} GiB of memory of this machine",
                fix="a smaller width or depth",
            )
    if takes_images:
        where = torch.device("cpu" if num_bytes <= SMALL else "meta")
        with where, torch.no_grad(), warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            if where.type == "cpu":
                layers = network.build(image_shape, num_classes)
            try:
                layers.eval()(torch.zeros(2, *image_shape))
            except (RuntimeError, ValueError) as error:
                size = "x".join(map(str, image_shape))
                problem = f"{kind} cannot take images of {size}: {str(error).splitlines()[0][:200]}"
                fix = "another kind, or a smaller depth or stride"
                raise ConfigError("network", problem, fix=fix) from None


def explained(error: Exception, network: Buildable) -> Exception:
    """``error`` of making a network, as one that people can act on where it is a lack of memory."""
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        problem = f"there is not enough memory for the parameters of {type(network).__name__}"
        return ConfigError("network", problem, fix="a smaller width or depth")
    return error
