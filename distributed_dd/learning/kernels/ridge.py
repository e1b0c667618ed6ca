"""Kernel ridge regression: from a kernel matrix and targets to weights, predictions, and solved labels.

It knows matrices only, whatever kernel or features they come from. n: the images that carry the
regression; t: the images that are predicted; K: the targets of an image.
"""

import torch
from torch import Tensor

from distributed_dd.errors import ConfigError, DivergedError

# float64 matrices (n, n) alive at once in `ridge_weights` and its gradient, the kernel included.
NUM_SQUARES = 9


def ridge_weights(kernel_nn: Tensor, targets_nK: Tensor, ridge: float) -> Tensor:
    """Weights (n, K), float64: ``(K + ridge * tr(K) / n * I)^-1 targets``.

    Factored in float64 whatever the dtypes are, for a ridge of 1e-6 of the mean eigenvalue is less than float32
    resolves. Differentiable by both tensors.

    Args:
        kernel_nn: symmetric, positive semi-definite.
        ridge: what is added to the diagonal, as a share of its mean; 0 or more.

    Raises:
        ConfigError: the sizes do not fit each other, or there is no row.
        DivergedError: the matrix is not finite, or, ridge included, not positive definite.
    """
    return torch.cholesky_solve(_double(targets_nK, len(kernel_nn)), _factor(kernel_nn, ridge))


def predict(kernel_tn: Tensor, weights_nK: Tensor) -> Tensor:
    """Predictions (t, K), float64, of images with these kernel values to the n images of the regression."""
    return kernel_tn.double() @ weights_nK.double()


def solved_labels(kernel_tn: Tensor, kernel_nn: Tensor, targets_tK: Tensor, ridge: float) -> Tensor:
    """The targets (n, K), float64, whose regression predicts ``targets_tK`` best, in least squares.

    Solves ``K_tn (K_nn + ridge * tr / n * I)^-1 y = targets`` (Nguyen et al., ICLR 2021, label solve). Takes at least
    n images to predict, else the answer is not unique.

    Raises:
        ConfigError: fewer predicted images than labels to solve for, or sizes that do not fit each other.
        DivergedError: as `ridge_weights`.
    """
    num_predicted, num_labels = kernel_tn.shape
    if num_predicted < num_labels:
        raise ConfigError(
            "label solve",
            f"{num_predicted} images are too few to solve for the labels of {num_labels}",
            allowed=f"{num_labels} or more",
        )
    smoother_tn = torch.cholesky_solve(kernel_tn.double().T, _factor(kernel_nn, ridge)).T
    return torch.linalg.lstsq(smoother_tn, _double(targets_tK, num_predicted)).solution


def memory_needed(num_images: int) -> int:
    """Bytes at most of `ridge_weights` and its gradient, for a kernel of ``num_images`` squared."""
    return NUM_SQUARES * 8 * num_images**2


def _factor(kernel_nn: Tensor, ridge: float) -> Tensor:
    """Lower triangular factor (n, n), float64, of the kernel with its ridge."""
    size = len(kernel_nn)
    if size == 0 or kernel_nn.shape != (size, size):
        raise ConfigError("kernel", f"its shape is {tuple(kernel_nn.shape)}", allowed="a square matrix with a row")
    kernel_nn = kernel_nn.double()
    if not torch.isfinite(kernel_nn.detach()).all():
        raise DivergedError(
            "kernel regression",
            "the kernel matrix holds numbers that are not finite",
            fix="lower the learning rate of the images",
        )
    added = ridge * kernel_nn.diagonal().mean()
    factor_nn, broken_at = torch.linalg.cholesky_ex(kernel_nn + added * torch.eye(size).to(kernel_nn))
    if broken_at:
        raise DivergedError(
            "kernel regression",
            f"the {size} x {size} kernel matrix with a ridge of {ridge:g} of its mean is not positive definite: row "
            f"{int(broken_at)} is as good as a sum of those before it",
            fix="raise the ridge; take images that differ",
        )
    return factor_nn


def _double(targets: Tensor, size: int) -> Tensor:
    """Targets (size, K) in float64."""
    if targets.ndim != 2 or len(targets) != size:
        raise ConfigError("targets", f"their shape is {tuple(targets.shape)}", allowed=f"({size}, targets per image)")
    return targets.double()
