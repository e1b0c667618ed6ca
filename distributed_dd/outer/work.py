"""Floating-point operations and bytes, counted before anything starts."""

from collections.abc import Callable, Hashable, Mapping

import torch
from torch import nn

from distributed_dd.data import Facts
from distributed_dd.data.cache import cached
from distributed_dd.family import plain
from distributed_dd.learning.networks import Network, initialised
from distributed_dd.outer.scale import Scale

FLOAT = 4
TRAIN_FACTOR = 3
"""One training step is a forward and two backward products."""


def forward_flops_of(member: Network, facts: Facts) -> int:
    """`forward_flops` of a network as it is configured."""

    def count() -> int:
        return forward_flops(initialised(member, facts.image_shape, facts.num_classes, torch.Generator()), facts)

    return counted_once("operations of a forward pass", member, facts, count)


def counted_once(what: str, member: Hashable, facts: Facts, count: Callable[[], int], *more: int) -> int:
    """What ``count`` returns, kept on this machine: what torch counts with takes seconds to load.

    Args:
        more: what else the number depends on.
    """
    identity = {
        "counted": what,
        "network": f"{type(member).__qualname__} {plain(member)}",
        "image_shape": facts.image_shape,
        "num_classes": facts.num_classes,
        "more": more,
        "torch": torch.__version__,
    }
    _, facts_kept = cached(what, identity, lambda: ({}, {"count": count()}))
    return int(facts_kept["count"])


def num_parameters_of(member: Network, facts: Facts) -> int:
    """Parameters of a network as it is configured."""
    layers = initialised(member, facts.image_shape, facts.num_classes, torch.Generator())
    return sum(parameter.numel() for parameter in layers.parameters())


def forward_flops(network: nn.Module, facts: Facts) -> int:
    """Floating-point operations of one image's forward pass; convolutions and products only."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network.eval()(torch.zeros(1, *facts.image_shape))
    return counter.get_total_flops()


def evaluation_operations(scale: Scale, num_images: int, num_sets: int, forward: float) -> float:
    """Training so many sets' networks, and those of the full data."""
    evaluate = scale.evaluate
    num_epochs = evaluate.recipe(scale.facts.num_classes, num_images).num_epochs
    images = num_sets * num_epochs * num_images + evaluate.num_epochs_full_data * scale.facts.num_train
    return evaluate.num_networks * images * TRAIN_FACTOR * forward


def work_line(operations: Mapping[str, float]) -> str:
    """Floating-point operations of each stage."""
    digits = 1 if sum(operations.values()) > 1e14 else 3
    parts = ", ".join(f"{stage} {value / 1e12:,.{digits}f}" for stage, value in operations.items())
    return (
        f"work      {sum(operations.values()) / 1e12:,.{digits}f} TFLOP ({parts}); a core does some 0.02 to 0.1 "
        f"TFLOP a second, a GPU some 20 ({sum(operations.values()) / 20e12 / 3600:,.1f} h)"
    )


def size(num_bytes: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} TiB"
