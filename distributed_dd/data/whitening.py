"""Preprocessing fitted on the training split, invertible, and kept in the artefact."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from distributed_dd.family import Family, require, setting


@dataclass(frozen=True)
class Fitted:
    """An invertible affine map of images: z = (x - mean) forward, x = z inverse + mean.

    ``forward`` and ``inverse`` are (C, 1, 1) scales or (d, d) matrices on flattened images. With ``scale`` (C, 1, 1)
    each image is brought to mean 0 and norm 1 on the way: z = u forward, u = c / |c|, c = y - mean(y),
    y = (x - mean) scale. That loses the image's own mean and norm; `invert` puts those of an average image in their
    place.
    """

    mean: Tensor
    forward: Tensor
    inverse: Tensor
    scale: Tensor | None = None

    def apply(self, images_nCHW: Tensor) -> Tensor:
        """Pixels in [0, 1], float (n, C, H, W), to network input."""
        self._check(images_nCHW)
        centred = images_nCHW - self.mean
        return _linear(centred if self.scale is None else _unit(centred * self.scale), self.forward)

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
        parts = {"mean": self.mean, "forward": self.forward, "inverse": self.inverse}
        return parts if self.scale is None else {**parts, "scale": self.scale}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], prefix: str = "") -> "Fitted":
        """From what `tensors` gave, each name behind ``prefix``; KeyError where a part is missing."""
        mean, forward, inverse = (tensors[f"{prefix}{name}"] for name in ("mean", "forward", "inverse"))
        return cls(mean, forward, inverse, tensors.get(f"{prefix}scale"))


def _linear(images: Tensor, weight: Tensor) -> Tensor:
    if weight.ndim == 2:
        return (images.flatten(1) @ weight).view_as(images)
    return images * weight


def _unit(images: Tensor) -> Tensor:
    """Each image less its mean, over its norm; an image of one value becomes 0."""
    centred = images - images.mean((1, 2, 3), keepdim=True)
    norms = torch.linalg.vector_norm(centred, dim=(1, 2, 3), keepdim=True)
    return centred / norms.clamp_min(torch.finfo(images.dtype).tiny)


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
class RegularisedZCA:
    """KIP's whitening (NeurIPS 2021): standardised channels, each image at mean 0 and norm 1, then ZCA.

    Its covariance is not centred again, and its ridge is a share of the mean eigenvalue. Where there are fewer images
    than pixels, directions in which no image lies keep their length.
    """

    costly: ClassVar[bool] = True

    ridge: float = setting("added to the covariance's eigenvalues, as a share of their mean", 0.1, above=0)

    def fit(self, images_nCHW: Tensor) -> Fitted:
        """Channel statistics, then the covariance X'X / n of the unit images, in float64."""
        shape = images_nCHW.shape[1:]
        channels = Standardise().fit(images_nCHW)
        scaled = (images_nCHW.double() - channels.mean) * channels.forward
        centred = scaled.flatten(1) - scaled.flatten(1).mean(1, keepdim=True)
        unit = _unit(scaled).flatten(1)
        values, vectors = torch.linalg.eigh(unit.T @ unit / len(unit))
        values = values.clamp_min(0) + self.ridge * values.mean()
        values[: max(0, len(values) - len(unit))] = 1
        root = values.sqrt()
        # Back to an average image: its norm here, and from there to pixels.
        length = centred.square().sum(1).sqrt().mean() * channels.inverse.double().expand(shape).reshape(1, -1)
        mean = channels.mean.expand(shape).clone()
        forward, inverse = (vectors / root) @ vectors.T, (vectors * root) @ vectors.T * length
        return Fitted(mean, forward.float(), inverse.float(), channels.forward)


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


PREPROCESSINGS = Family(
    "preprocessing",
    {"zca": ZCA, "regularised_zca": RegularisedZCA, "standardise": Standardise, "none": Unchanged},
)
