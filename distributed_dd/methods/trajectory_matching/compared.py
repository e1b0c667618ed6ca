"""What of a student is compared with the expert: which parameters, and after which of its steps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from distributed_dd.family import Family, setting
from distributed_dd.unroll import At, EndLoss, Ends, LargestMatching, Matching, Nearest


class Counted(Protocol):
    """The parameters whose distance to the target is the matching loss."""

    def loss(self, start_P: Tensor, target_P: Tensor) -> EndLoss:
        """For one segment."""
        ...


@dataclass(frozen=True)
class All:
    """Every parameter."""

    def loss(self, start_P: Tensor, target_P: Tensor) -> EndLoss:
        """The matching loss of MTT."""
        return Matching.between(start_P, target_P)


@dataclass(frozen=True)
class Deep:
    """All but the shallowest, counted from the input on (PAD, 2024): deep layers learn what is hard."""

    left_out: float = setting("share of the parameters that do not count", 0.25, below=1)

    def loss(self, start_P: Tensor, target_P: Tensor) -> EndLoss:
        """Normalised over those that count."""
        counted_P = torch.ones_like(start_P)
        counted_P[: int(self.left_out * len(start_P))] = 0
        return Matching.between(start_P, target_P, counted_P)


@dataclass(frozen=True)
class Furthest:
    """All but those that the student brought nearest to the target (EDF, CVPR 2025)."""

    left_out: float = setting("share of the parameters that do not count", 0.25, below=1)

    def loss(self, start_P: Tensor, target_P: Tensor) -> EndLoss:
        """Which they are is seen at the student's end."""
        return LargestMatching(start_P, target_P, self.left_out)


COUNTED: Family = Family("parameters that count", {"all": All, "deep": Deep, "furthest": Furthest})


class Compared(Protocol):
    """The student step that is compared with the target."""

    def ends(self, loss: EndLoss, target_P: Tensor, num_steps: int, agreed: Callable[[Tensor], Tensor]) -> Ends:
        """For one segment; ``agreed`` as in `Nearest`."""
        ...


@dataclass(frozen=True)
class Last:
    """The last."""

    def ends(self, loss: EndLoss, target_P: Tensor, num_steps: int, agreed: Callable[[Tensor], Tensor]) -> Ends:
        """After all steps."""
        return At({num_steps: loss})


@dataclass(frozen=True)
class NearestStep:
    """The one that comes nearest to the target; the gradient is exact, through the steps up to it (ATT, ECCV 2024)."""

    def ends(self, loss: EndLoss, target_P: Tensor, num_steps: int, agreed: Callable[[Tensor], Tensor]) -> Ends:
        """By the sum of absolute differences over all parameters."""
        return Nearest(loss, target_P, agreed)


COMPARED: Family = Family("compared student step", {"last": Last, "nearest": NearestStep})
