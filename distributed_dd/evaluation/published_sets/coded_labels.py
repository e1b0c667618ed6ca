"""Soft labels as the likeliest classes of each image, in few bits: what they keep, and what that costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distributed_dd.errors import IntegrityError
from distributed_dd.evaluation.published_sets.columns import TOP_CLASSES, TOP_PROBABILITIES

LEAST = 1e-30
"""Of a probability whose logarithm is taken."""


@dataclass(frozen=True)
class Coded:
    """Class numbers int64 (n, k), likeliest first, and their probabilities as whole numbers (n, k) below 2**bits."""

    classes: Tensor
    levels: Tensor
    bits: int

    @classmethod
    def of_columns(cls, parts: Sequence[Mapping[str, Tensor]], about: Any, where: str) -> "Coded":
        """From the columns of a file.

        Raises:
            IntegrityError: they are missing or do not fit each other.
        """
        bits = about.get("bits") if isinstance(about, dict) else None
        try:
            classes, levels = (torch.cat([part[name] for part in parts]) for name in (TOP_CLASSES, TOP_PROBABILITIES))
        except (KeyError, RuntimeError):
            classes, levels = torch.empty(0), torch.empty(1)
        fits = bits in (8, 16) and classes.ndim == 2 and classes.shape == levels.shape and classes.numel() > 0
        fits = fits and not classes.is_floating_point() and not levels.is_floating_point()
        if not fits or int(classes.min()) < 0 or int(levels.min()) < 0 or int(levels.max()) >= 2 ** int(bits or 0):
            raise IntegrityError(where, f"{TOP_CLASSES} and {TOP_PROBABILITIES} do not fit each other")
        return cls(classes.long(), levels.long(), int(bits or 0))

    @property
    def num_bytes(self) -> int:
        """Of the labels: a class number of one or two bytes, and a probability."""
        width = 1 if int(self.classes.max()) < 2**8 else 2
        return self.classes.numel() * (width + self.bits // 8)


def coded(labels: Tensor, k: int, bits: int) -> Coded:
    """Label logits (n, K) by their ``k`` likeliest classes."""
    top = labels.double().softmax(1).topk(k, 1)
    return Coded(top.indices, (top.values * (2**bits - 1)).round().long(), bits)


def decoded(labels: Coded, num_classes: int) -> Tensor:
    """Logits float32 (n, K) of coded labels: what the kept classes leave over is shared by the others alike.

    Raises:
        IntegrityError: a class number is not below ``num_classes``.
    """
    if int(labels.classes.max()) >= num_classes:
        raise IntegrityError(TOP_CLASSES, f"goes up to {int(labels.classes.max())}", allowed=f"below {num_classes}")
    kept = labels.levels.double() / (2**labels.bits - 1)
    n, k = kept.shape
    # Half a step is what rounding hides.
    rest = (1 - kept.sum(1, keepdim=True)).clamp_min(0.5 / (2**labels.bits - 1))
    share = rest / (num_classes - k) if num_classes > k else rest
    probabilities = share.expand(n, num_classes).scatter(1, labels.classes, kept)
    probabilities = probabilities / probabilities.sum(1, keepdim=True)
    return probabilities.clamp_min(LEAST).log().float()


def cost(labels: Tensor, kept: Tensor) -> dict[str, float]:
    """What logits ``kept`` (n, K) lose of ``labels`` (n, K), means over images.

    ``kl_divergence``: of the kept from the exact probabilities, nats. ``absolute_change``: of a probability.
    """
    exact, near = labels.double().log_softmax(1), kept.double().log_softmax(1)
    divergence = (exact.exp() * (exact - near)).sum(1).mean()
    change = (exact.exp() - near.exp()).abs().mean()
    return {"kl_divergence": float(divergence.clamp_min(0)), "absolute_change": float(change)}
