"""The kernels of fully connected networks: a matrix product, then a recursion on its entries."""

from dataclasses import dataclass

from torch import Tensor

from distributed_dd.family import setting
from distributed_dd.learning.kernels.arc_cosine import BIAS_VARIANCE, WEIGHT_VARIANCE, relu_expectations
from distributed_dd.learning.kernels.kernel import Kernel, Shape, Which


@dataclass(frozen=True)
class FullyConnected(Kernel):
    """A multilayer perceptron, infinitely wide: dense layers with ReLU between them, on flattened images."""

    depth: int = setting("hidden layers", 1, at_least=1, at_most=1_000)

    def check(self, image_shape: Shape) -> None:
        """Every shape fits."""

    def describe(self) -> str:
        """The network in words."""
        return f"fully connected, {self.depth} hidden layer{'s' if self.depth > 1 else ''} of infinite width"

    def pairs_cost(self, image_shape: Shape) -> int:
        """One ReLU a hidden layer."""
        return self.depth

    def bytes_per_pair(self, image_shape: Shape, itemsize: int) -> int:
        """Three numbers a hidden layer are kept for the gradient, beside those at work."""
        return (4 * self.depth + 12) * itemsize

    def prepared(self, images_nCHW: Tensor) -> tuple[Tensor, ...]:
        """The variance of each image before the first ReLU."""
        flat_nd = images_nCHW.flatten(1)
        return (_dense(flat_nd.square().mean(1)),)

    def values(
        self,
        x_nCHW: Tensor,
        y_mCHW: Tensor,
        prepared_x: tuple[Tensor, ...],
        prepared_y: tuple[Tensor, ...],
        which: Which,
        compiled: bool = False,
    ) -> Tensor:
        """(n, m). Never compiled: with its gradient the matrix was no faster so."""
        x_nd, y_md = x_nCHW.flatten(1), y_mCHW.flatten(1)
        covariance_nm = x_nd @ y_md.T / x_nd.shape[1]
        c, a, b = _dense(covariance_nm), prepared_x[0][:, None], prepared_y[0]
        tangent = c
        for _ in range(self.depth):
            first, slope = relu_expectations(c, a * b, tangent)
            c, a, b = _dense(first), _dense(a / 2), _dense(b / 2)
            tangent = c + WEIGHT_VARIANCE * slope
        return tangent if which == "ntk" else c


def _dense(variance: Tensor) -> Tensor:
    return WEIGHT_VARIANCE * variance + BIAS_VARIANCE
