"""Preprocessing fitted on the training split, invertible, and kept in the artefact."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from distributed_dd.family import Family, require, setting


@dataclass(frozen=True)
class Fitted:
    """An invertible affine map of images: z = (x - mean) forward, x = z inverse + mean.

    ``forward`` and ``inverse`` are (C, 1, 1) scales or (d, d) matrices on flattened images.
    """

    mean: Tensor
    forward: Tensor
    inverse: Tensor

    def apply(self, images_nCHW: Tensor) -> Tensor:
        """Pixels in [0, 1], float (n, C, H, W), to network input."""
        self._check(images_nCHW)
        return _linear(images_nCHW - self.mean, self.forward)

    def invert(self, images_nCHW: Tensor) -> Tensor:
        """Network input to pixels."""
        self._check(images_nCHW)
        return _linear(images_nCHW, self.inverse) + self.mean

    def _check(self, images: Tensor) -> None:
        fits = isinstance(images, Tensor) and images.is_floating_point() and images.ndim == 4
        wanted = self.mean.shape if self.forward.ndim == 2 else self.mean.shape[:1]
        fits = fits and images.shape[1 : 1 + len(wanted)] == wanted
        actual = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        allowed = f"float tensor (n, {', '.join(map(str, wanted))}{', H, W' * (len(wanted) == 1)})"
        require(bool(fits), "images", f"got {actual}", allowed)

    def tensors(self) -> dict[str, Tensor]:
        """What must be stored to apply and invert it."""
        return {"mean": self.mean, "forward": self.forward, "inverse": self.inverse}


def _linear(images: Tensor, weight: Tensor) -> Tensor:
    if weight.ndim == 2:
        return (images.flatten(1) @ weight).view_as(images)
    return images * weight


class Preprocessing(Protocol):
    """A kind of preprocessing; `fit` learns it from training images in [0, 1].

    ``costly`` says that a fit is worth keeping on disk.
    """

    @property
    def costly(self) -> bool: ...

    def fit(self, images_nCHW: Tensor) -> Fitted: ...


@dataclass(frozen=True)
class Standardise:
    """Subtract the training mean of each channel and divide by its standard deviation."""

    costly: ClassVar[bool] = False

    def fit(self, images_nCHW: Tensor) -> Fitted:
        """Channel statistics over all training pixels."""
        mean = images_nCHW.double().mean((0, 2, 3)).view(-1, 1, 1)
        std = images_nCHW.double().std((0, 2, 3)).view(-1, 1, 1).clamp_min(1e-6)
        return Fitted(mean.float(), (1 / std).float(), std.float())


@dataclass(frozen=True)
class ZCA:
    """Zero-phase whitening of [0, 1] pixels: W = U (S + eps)^-1/2 U'."""

    costly: ClassVar[bool] = True

    eps: float = setting("added to the covariance's eigenvalues", 0.1, above=0)

    def fit(self, images_nCHW: Tensor) -> Fitted:
        """Mean and covariance (n - 1) of the flattened training images, in float64."""
        flat = images_nCHW.double().flatten(1)
        mean = flat.mean(0)
        centred = flat - mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / (len(flat) - 1))
        root = (values.clamp_min(0) + self.eps).sqrt()
        forward, inverse = (vectors / root) @ vectors.T, (vectors * root) @ vectors.T
        return Fitted(mean.view(images_nCHW.shape[1:]).float(), forward.float(), inverse.float())


@dataclass(frozen=True)
class Unchanged:
    """Pixels in [0, 1], as they are."""

    costly: ClassVar[bool] = False

    def fit(self, images_nCHW: Tensor) -> Fitted:
        """The identity."""
        ones = torch.ones(images_nCHW.shape[1], 1, 1)
        return Fitted(torch.zeros_like(ones), ones, ones)


@dataclass(frozen=True)
class AlreadyFitted:
    """What was fitted elsewhere, such as in the run that made a distilled set."""

    costly: ClassVar[bool] = False

    fitted: Fitted

    def fit(self, images_nCHW: Tensor) -> Fitted:
        """The preprocessing that was fitted before."""
        return self.fitted


PREPROCESSINGS = Family("preprocessing", {"zca": ZCA, "standardise": Standardise, "none": Unchanged})
