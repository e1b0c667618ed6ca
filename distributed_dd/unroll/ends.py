"""What the end of a student's training is worth: losses of its parameters, and after which steps they count.

Legend: P parameters, N student steps; after t steps the parameters are theta_t, t = 0 .. N.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from distributed_dd.errors import ConfigError


class EndLoss(ABC):
    """A loss of the student's parameters.

    Attributes:
        parted: each of the ranks that share a student gives its part of loss and slope, and the sums count;
            otherwise every rank gives the whole.
    """

    parted: bool = False

    @abstractmethod
    def loss(self, theta_P: Tensor) -> Tensor:
        """A scalar; with a graph where ``theta_P`` has one."""

    def slope(self, theta_P: Tensor) -> tuple[Tensor, Tensor]:
        """The loss () and its gradient (P,), without a graph.

        Raises:
            ConfigError: the loss does not depend on the parameters.
        """
        with torch.enable_grad():
            leaf = theta_P.detach().requires_grad_()
            loss = self.loss(leaf)
            (slope,) = torch.autograd.grad(loss, leaf, allow_unused=True) if loss.requires_grad else (None,)
        if slope is None:
            raise ConfigError(
                "end loss",
                "does not depend on the student's parameters: no gradient could reach the set",
                allowed="a differentiable function of theta (P,)",
            )
        return loss.detach(), slope


@dataclass(frozen=True)
class Matching(EndLoss):
    """|theta - target|^2 / scale, over the parameters that count (MTT, CVPR 2022).

    Attributes:
        scale: the normaliser, a scalar.
        counted_P: 1 for parameters that count and 0 for others; None: all count.
    """

    target_P: Tensor
    scale: Tensor
    counted_P: Tensor | None = None

    @staticmethod
    def between(start_P: Tensor, target_P: Tensor, counted_P: Tensor | None = None) -> "Matching":
        """Normalised by the squared distance from start to target, over the parameters that count."""
        way_P = start_P - target_P
        if counted_P is not None:
            way_P = way_P * counted_P
        return Matching(target_P, way_P.square().sum(), counted_P)

    def _residual(self, theta_P: Tensor) -> Tensor:
        residual_P = theta_P - self.target_P
        return residual_P if self.counted_P is None else residual_P * self.counted_P

    def loss(self, theta_P: Tensor) -> Tensor:
        """The normalised squared distance."""
        return self._residual(theta_P).square().sum() / self.scale

    def slope(self, theta_P: Tensor) -> tuple[Tensor, Tensor]:
        """In closed form."""
        residual_P = self._residual(theta_P)
        return residual_P.square().sum() / self.scale, 2 * residual_P / self.scale


@dataclass(frozen=True)
class LargestMatching(EndLoss):
    """As `Matching`, over the parameters that are furthest from the target at the end (EDF, CVPR 2025).

    Which they are is not differentiated.

    Attributes:
        dropped: share of the parameters, those nearest to the target, that do not count.
    """

    start_P: Tensor
    target_P: Tensor
    dropped: float

    def loss(self, theta_P: Tensor) -> Tensor:
        """Normalised by the distance from start to target over the same parameters."""
        residual_P, way_P = theta_P - self.target_P, self.start_P - self.target_P
        if num_dropped := int(self.dropped * len(theta_P)):
            sizes_P = residual_P.detach().abs()
            counted_P = sizes_P > sizes_P.kthvalue(num_dropped).values
            residual_P, way_P = residual_P * counted_P, way_P * counted_P
        return residual_P.square().sum() / way_P.square().sum()


@dataclass(frozen=True)
class Measured(EndLoss):
    """Any function of the parameters, such as the loss on real images.

    Attributes:
        of: from theta (P,) to a scalar.
        share: this rank's share of the loss, where ``of`` is a mean over its own rows and ranks have different ones.
    """

    of: Callable[[Tensor], Tensor]
    share: float | None = None

    @property
    def parted(self) -> bool:  # type: ignore[override]
        """Whether ranks have parts of it."""
        return self.share is not None

    def loss(self, theta_P: Tensor) -> Tensor:
        """This rank's part."""
        loss = self.of(theta_P)
        return loss if self.share is None else self.share * loss


class Look(NamedTuple):
    """An end loss and where it is taken: after ``step`` steps, at ``theta_P``."""

    step: int
    end: EndLoss
    theta_P: Tensor


class Follower(Protocol):
    """Goes along with one student."""

    def see(self, step: int, theta_P: Tensor) -> None:
        """The parameters after ``step`` steps, 1 .. N, in this order."""
        ...

    def looks(self) -> list[Look]:
        """The losses that count, after the last step."""
        ...


class Ends(Protocol):
    """Which losses count, after which steps; their sum is what an unroll differentiates."""

    def follow(self) -> Follower:
        """For one student; keeps what it needs of the parameters that it sees, with their graphs."""
        ...


@dataclass(frozen=True)
class At:
    """Losses after fixed numbers of steps: ``losses[t]`` is taken after t of them."""

    losses: Mapping[int, EndLoss]

    def follow(self) -> Follower:
        """Keeps the parameters after these steps."""
        return _FollowedAt(self.losses)


@dataclass
class _FollowedAt:
    losses: Mapping[int, EndLoss]
    seen: list[Look] = field(default_factory=list)

    def see(self, step: int, theta_P: Tensor) -> None:
        if step in self.losses:
            self.seen.append(Look(step, self.losses[step], theta_P))

    def looks(self) -> list[Look]:
        return self.seen


@dataclass(frozen=True)
class Nearest:
    """A loss after the step that comes nearest to the target by the sum of absolute differences (ATT, ECCV 2024).

    The gradient is that of the chosen prefix; which step is chosen is not differentiated.

    Attributes:
        end: the loss that is taken there. target_P: what the step comes near to.
        agreed: what the first of the ranks that share the student has, so that all choose alike.
    """

    end: EndLoss
    target_P: Tensor
    agreed: Callable[[Tensor], Tensor] = field(default=lambda value: value)

    def follow(self) -> Follower:
        """Keeps the nearest parameters so far."""
        return _FollowedNearest(self)


@dataclass
class _FollowedNearest:
    ends: Nearest
    distance: float = float("inf")
    nearest: Look | None = None

    def see(self, step: int, theta_P: Tensor) -> None:
        with torch.no_grad():
            distance = self.ends.agreed((theta_P - self.ends.target_P).abs().sum()).item()
        # A distance that is no number is never below another: the first step stands, and its loss is refused later.
        if self.nearest is None or distance < self.distance:
            self.distance, self.nearest = distance, Look(step, self.ends.end, theta_P)

    def looks(self) -> list[Look]:
        assert self.nearest is not None  # a student makes a step at least
        return [self.nearest]
