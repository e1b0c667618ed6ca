"""A kernel over pairs of images, in blocks of so much memory."""

from dataclasses import dataclass

import torch
from torch import Tensor

from distributed_dd.learning.kernels import Kernel
from distributed_dd.learning.kernels.blocks import kernel_matrix, kernel_pullback, pairs_within


@dataclass(frozen=True)
class Pairs:
    """How kernels of pairs are made.

    Attributes:
        block_bytes: of a block. Fixed, and not what is free: sums over blocks must have the same bits everywhere.
    """

    kernel: Kernel
    block_bytes: int
    compiled: bool = False

    @torch.no_grad()
    def matrix(self, x_nCHW: Tensor, y_mCHW: Tensor | None = None) -> Tensor:
        """The tangent kernel (n, m), without a graph; of ``x_nCHW`` with itself where there is no other."""
        return kernel_matrix(self.kernel, x_nCHW, y_mCHW, block_pairs=self._block(x_nCHW), compiled=self.compiled)

    def by_second(self, x_nCHW: Tensor, y_mCHW: Tensor, by_kernel_nm: Tensor) -> Tensor:
        """From the gradient by the kernel, that by the second images (m, C, H, W)."""
        _, gradient = self._pulled_back(x_nCHW, y_mCHW, by_kernel_nm, (False, True))
        assert gradient is not None
        return gradient

    def by_both(self, x_nCHW: Tensor, y_mCHW: Tensor, by_kernel_nm: Tensor) -> tuple[Tensor, Tensor]:
        """From the gradient by the kernel, those by both sides."""
        by_x, by_y = self._pulled_back(x_nCHW, y_mCHW, by_kernel_nm, (True, True))
        assert by_x is not None and by_y is not None
        return by_x, by_y

    def by_itself(self, x_nCHW: Tensor, by_kernel_nn: Tensor) -> Tensor:
        """From the gradient by the kernel of images with themselves, that by the images."""
        gradient, _ = self._pulled_back(x_nCHW, None, by_kernel_nn, (True, True))
        assert gradient is not None
        return gradient

    def _pulled_back(
        self, x_nCHW: Tensor, y_mCHW: Tensor | None, by_kernel_nm: Tensor, sides: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        return kernel_pullback(
            self.kernel,
            x_nCHW,
            y_mCHW,
            by_kernel_nm,
            block_pairs=self._block(x_nCHW),
            compiled=self.compiled,
            sides=sides,
        )

    def _block(self, images_nCHW: Tensor) -> int:
        return pairs_within(self.kernel, images_nCHW, self.block_bytes)
