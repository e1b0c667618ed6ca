"""The loss of a regression on features: how well real images are predicted from the set's features and targets."""

from dataclasses import dataclass

from torch import Tensor

from distributed_dd.learning.classes import centred_targets
from distributed_dd.learning.kernels.ridge import predict, ridge_weights


@dataclass(frozen=True, kw_only=True)
class Regression:
    """Ridge regression with the kernel ``scale * Z Z^T / F + offset`` of features Z (.., F), in float64.

    Attributes:
        ridge: added to the diagonal, as a share of its mean.
    """

    ridge: float
    scale: float = 1.0
    offset: float = 0.0

    def kernel(self, features_aF: Tensor, features_bF: Tensor) -> Tensor:
        """(a, b), float64: in float32 rounding would be larger than the ridge."""
        return self.scale / features_bF.shape[1] * features_aF.double() @ features_bF.double().T + self.offset

    def predictions(self, features_tF: Tensor, features_nF: Tensor, targets_nK: Tensor) -> Tensor:
        """Of t images (t, K), float64, from n images with targets.

        Raises:
            DivergedError: features are not finite, or the kernel has no inverse.
        """
        weights_nK = ridge_weights(self.kernel(features_nF, features_nF), targets_nK, self.ridge)
        return predict(self.kernel(features_tF, features_nF), weights_nK)


def squared_error(predictions_tK: Tensor, classes_t: Tensor) -> Tensor:
    """1/2 sum_k (prediction_k - [k is the class] + 1/K)^2, summed over images."""
    num_classes = predictions_tK.shape[1]
    wanted_tK = centred_targets(classes_t, num_classes, predictions_tK.dtype)
    return 0.5 * (predictions_tK - wanted_tK).square().sum()


def label_margin(targets_nK: Tensor) -> Tensor:
    """How far the largest target is above the second, but not more than 1/K, summed over images."""
    first_n, second_n = targets_nK.topk(2, dim=1).values.unbind(1)
    return (first_n - second_n).clamp(max=1 / targets_nK.shape[1]).sum()


def starting_targets(classes_n: Tensor, num_classes: int) -> Tensor:
    """(n, K): 1 at the class and 0 elsewhere, less their mean, over the root of a tenth of K."""
    return centred_targets(classes_n, num_classes) / (num_classes / 10) ** 0.5
