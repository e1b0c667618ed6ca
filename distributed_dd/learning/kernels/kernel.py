"""What every kernel can do."""

from abc import ABC, abstractmethod
from typing import Literal

from torch import Tensor

Which = Literal["ntk", "nngp"]
Shape = tuple[int, int, int]


class Kernel(ABC):
    """Compares images as an infinitely wide network does; its configuration.

    The two kernels of a network (`Which`): `ntk`, the tangent kernel, of a network whose weights are all trained
    (Jacot et al., NeurIPS 2018), and `nngp`, the covariance of its outputs at the start, where the last layer alone is
    trained. Weights have variance 2 / fan-in, biases .01.
    """

    @abstractmethod
    def check(self, image_shape: Shape) -> None:
        """Raises: ConfigError: the network does not fit images of shape (C, H, W)."""

    @abstractmethod
    def describe(self) -> str:
        """The network in words."""

    @abstractmethod
    def pairs_cost(self, image_shape: Shape) -> int:
        """Pairs of positions, at which a ReLU is taken, in a pair of images: what the time of the pair goes by."""

    @abstractmethod
    def bytes_per_pair(self, image_shape: Shape, itemsize: int) -> int:
        """Bytes alive at once, at most, for each pair of a block whose gradient is taken; `itemsize` of a number."""

    @abstractmethod
    def prepared(self, images_nCHW: Tensor) -> tuple[Tensor, ...]:
        """What every pair needs of each image by itself: tensors (n, ..). Differentiable."""

    @abstractmethod
    def values(
        self,
        x_nCHW: Tensor,
        y_mCHW: Tensor,
        prepared_x: tuple[Tensor, ...],
        prepared_y: tuple[Tensor, ...],
        which: Which,
        compiled: bool = False,
    ) -> Tensor:
        """(n, m) of the images' dtype, differentiable once by images and by what was `prepared` of them.

        Args:
            compiled: with code that is compiled for these shapes, where the kernel gains by it; in float32 the same
                to 1e-6.
        """

    def ntk(self, x_nCHW: Tensor, y_mCHW: Tensor | None = None) -> Tensor:
        """The tangent kernel (n, m), all pairs at once; of ``x_nCHW`` with itself where there is no other."""
        return self._of(x_nCHW, y_mCHW, "ntk")

    def nngp(self, x_nCHW: Tensor, y_mCHW: Tensor | None = None) -> Tensor:
        """The covariance (n, m) of the outputs, all pairs at once."""
        return self._of(x_nCHW, y_mCHW, "nngp")

    def _of(self, x_nCHW: Tensor, y_mCHW: Tensor | None, which: Which) -> Tensor:
        other = x_nCHW if y_mCHW is None else y_mCHW
        self.check((x_nCHW.shape[1], x_nCHW.shape[2], x_nCHW.shape[3]))
        prepared_x = self.prepared(x_nCHW)
        return self.values(x_nCHW, other, prepared_x, prepared_x if y_mCHW is None else self.prepared(other), which)
