"""Batches whose images are mixed with one another, and their labels alike: torchvision's CutMix and Mixup."""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from distributed_dd.family import Family, setting


class Mixing(Protocol):
    """Mixes a batch."""

    def apply(
        self, images_BCHW: Tensor, labels: Tensor, num_classes: int, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The batch with logits (B, K) as labels; ``labels`` are class numbers (B,) or logits (B, K)."""
        ...


@dataclass(frozen=True)
class Unmixed:
    """Every image by itself."""

    def apply(
        self, images_BCHW: Tensor, labels: Tensor, num_classes: int, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The batch as it is."""
        return images_BCHW, labels


@dataclass(frozen=True)
class _Torchvision:
    """One of torchvision's ways: a share is drawn for each batch, and every image is mixed with the one before it."""

    name: ClassVar[str]

    alpha: float = setting("both parameters of the beta distribution that the share is drawn from", 1.0, above=0)
    probability: float = setting("share of the batches that are mixed", 1.0, at_least=0, at_most=1)

    def apply(
        self, images_BCHW: Tensor, labels: Tensor, num_classes: int, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The mixed batch; its labels are logarithms of probabilities, minus infinity for 0."""
        from torchvision.transforms import v2

        if float(torch.rand((), generator=rng)) >= self.probability:
            return images_BCHW, labels
        way: Any = getattr(v2, self.name)(alpha=self.alpha, num_classes=num_classes)
        probabilities_BK = labels.softmax(1) if labels.ndim == 2 else one_hot(labels, num_classes).float()
        # torchvision draws from torch's own state, which is put back.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=rng)))
            images_BCHW, probabilities_BK = way(images_BCHW, probabilities_BK)
        return images_BCHW, probabilities_BK.log()


@dataclass(frozen=True)
class CutMix(_Torchvision):
    """A rectangle of another image takes its place (Yun et al., ICCV 2019)."""

    name: ClassVar[str] = "CutMix"


@dataclass(frozen=True)
class Mixup(_Torchvision):
    """The weighted mean of two images (Zhang et al., ICLR 2018)."""

    name: ClassVar[str] = "MixUp"


MIXINGS = Family("mixing", {"none": Unmixed, "cutmix": CutMix, "mixup": Mixup})
