"""Normalisation and pooling layers by the words that configurations use."""

from typing import Literal

from torch import nn

from distributed_dd.learning.networks.pooling import AveragePool

Norm = Literal["instance", "group", "batch", "none"]
Pooling = Literal["average", "max", "none"]
GROUPS = 4


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """A norm over ``channels``; only batch norm keeps running statistics."""
    if norm == "instance":
        # One group per channel is instance norm with affine parameters and no running state.
        return nn.GroupNorm(channels, channels)
    if norm == "group":
        return nn.GroupNorm(GROUPS, channels)
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.Identity()


def pooling_layer(pooling: Pooling) -> nn.Module:
    """Halves height and width, or leaves them."""
    if pooling == "average":
        return AveragePool()
    return nn.MaxPool2d(2) if pooling == "max" else nn.Identity()
