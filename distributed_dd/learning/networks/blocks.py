"""Where a network's blocks end, and networks that also return the features of one module."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distributed_dd.errors import ConfigError
from distributed_dd.family import did_you_mean, require
from distributed_dd.learning.flat import FlatNetwork

ATTRIBUTE = "block_names"


def with_blocks(network: nn.Module, names: Sequence[str]) -> nn.Module:
    """``network``, with the names of the modules at which its blocks end, from the image to the logits."""
    setattr(network, ATTRIBUTE, tuple(names))
    return network


def block_names(network: nn.Module) -> tuple[str, ...]:
    """The names of the modules at which the blocks of ``network`` end; none where it does not say."""
    return getattr(network, ATTRIBUTE, ())


def layer_named(network: nn.Module, layer: str, where: str) -> str:
    """The module that ``layer`` means: a block's number, a module's name, or ``middle``, the middle block.

    Raises:
        ConfigError: there is no such module.
    """
    known = block_names(network)
    if layer == "middle" and known:
        return known[len(known) // 2]
    if layer.isdigit() and int(layer) < len(known):
        return known[int(layer)]
    modules = [name for name, _ in network.named_modules() if name]
    if layer in modules and not layer.isdigit():
        return layer
    numbers = f"middle, a block 0 to {len(known) - 1}, or a module" if known else "a module"
    raise ConfigError(
        where,
        f"no layer {layer!r}{did_you_mean(layer, modules)}",
        allowed=f"{numbers} such as {', '.join(modules[:8])}",
    )


def feature_layer(network: nn.Module) -> str:
    """The module whose output goes into the classifier.

    Raises:
        ConfigError: the network does not say where its features end.
    """
    known = block_names(network)
    require(
        bool(known),
        "network",
        "does not say where its features end",
        "a network with blocks, such as convnet",
    )
    return known[-1]


class FeatureNetwork(FlatNetwork):
    """A network as a function of one flat parameter vector that also returns the output of one module."""

    def __init__(self, network: nn.Module, layer: str, precision: str = "float32", channels_last: bool = False) -> None:
        super().__init__(network, precision, channels_last)
        self._seen: list[Tensor] = []
        network.get_submodule(layer).register_forward_hook(self._look)

    def _look(self, module: nn.Module, inputs: Any, out: Tensor) -> None:
        self._seen.append(out)

    def look(self, theta_P: Tensor, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (B, K) and features (B, ..), in at least float32."""
        self._seen.clear()
        logits = self.logits(theta_P, images_BCHW)
        (features,) = self._seen
        self._seen.clear()
        return logits, features.float() if features.dtype == torch.bfloat16 else features
