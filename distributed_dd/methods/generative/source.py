"""What a generator gives: images that are new in every epoch, or a sample that is drawn once and kept."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from distributed_dd.data import Fitted
from distributed_dd.learning.chance import generator
from distributed_dd.learning.classes import hard_logits
from distributed_dd.learning.flat import unflatten
from distributed_dd.learning.networks.batch_norm import batch_norms, take_standing_statistics
from distributed_dd.learning.networks.generator import ConvGenerator, conditioned

# Processors are fastest while a layer fits their cache.
ROWS_AT_A_TIME = {"cpu": 64, "cuda": 1024}


def standing_noise(noise_size: int, num_classes: int, batches: int = 8, size: int = 128) -> list[Tensor]:
    """What the statistics of a finished generator are taken from: the same noise always, all classes."""
    rng = generator(0, "standing statistics")
    classes = torch.arange(size) % num_classes
    return [conditioned(torch.randn(size, noise_size, generator=rng), classes, num_classes) for _ in range(batches)]


def built(member: ConvGenerator, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """The layers of a finished generator, to be filled; torch's global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        layers = member.build(image_shape, num_classes)
    for norm in batch_norms(layers):
        norm.standing = True
    return layers.to(memory_format=torch.channels_last).requires_grad_(False)


def finished(member: ConvGenerator, image_shape: tuple[int, int, int], num_classes: int, theta_P: Tensor) -> nn.Module:
    """A generator with these parameters that makes each image from its noise and class alone."""
    layers = built(member, image_shape, num_classes)
    unflatten(theta_P.cpu(), layers)
    take_standing_statistics(layers, standing_noise(member.noise_size, num_classes))
    return layers


@dataclass(frozen=True, kw_only=True)
class Source:
    """A finished generator as a source of training images.

    Attributes:
        layers: from noise with a class to images in [-1, 1]. fitted: pixels in [0, 1] to network input.
        classes: of the images of one epoch, (n,).
        key: words that set its draws apart from those of other sources.
    """

    layers: nn.Module
    fitted: Fitted
    noise_size: int
    num_classes: int
    classes: Tensor
    seed: int
    key: tuple[str | int, ...] = ("fresh",)

    def keyed(self, *key: str | int) -> "Source":
        """The same with other draws."""
        return replace(self, key=(*self.key, *key))

    def to(self, device: torch.device) -> "Source":
        """The same, computing on a device."""
        fitted = Fitted(**{name: t.to(device) for name, t in self.fitted.tensors().items()})
        return replace(self, layers=self.layers.to(device), fitted=fitted)

    @torch.no_grad()
    def epoch(self, number: int) -> Tensor:
        """Images (n, C, H, W) of an epoch in network-input space, in the order of ``classes``."""
        rng = generator(self.seed, *self.key, number)
        noise = torch.randn(len(self.classes), self.noise_size, generator=rng)
        where = self.fitted.mean.device
        conditions = conditioned(noise, self.classes, self.num_classes).to(where)
        parts = [self.layers(part) for part in conditions.split(ROWS_AT_A_TIME[where.type])]
        return self.fitted.apply((torch.cat(parts).contiguous() + 1) / 2)


def all_classes(num_classes: int, per_class: int) -> Tensor:
    """``per_class`` images of each class, class by class."""
    return torch.arange(num_classes).repeat_interleave(per_class)


def frozen(source: Source, learning_rate: float) -> dict[str, Tensor]:
    """One epoch of a source as a synthetic set: images, label logits, classes, learning rate."""
    return {
        "images": source.keyed("frozen").epoch(0).cpu(),
        "labels": hard_logits(source.classes, source.num_classes),
        "classes": source.classes,
        "learning_rate": torch.tensor(learning_rate, dtype=torch.float32),
    }
