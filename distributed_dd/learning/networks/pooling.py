"""Average pooling of 2 x 2 that is faster on CPUs than torch's, with the same numbers.

Torch pools one number after another; there, a network of the field's kind spends a fifth to a quarter of a training
step in it. Two neighbouring rows of a contiguous image are one run of memory, so the mean of 2 x 2 is a product with a
fixed matrix that has four quarters in each column, and products are what CPUs are fastest at. The zeros add nothing
and quarters round nothing: the result has torch's bits where the product adds in ascending order, as the usual
libraries do. Gradients of any order are products too.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

WIDTHS = range(4, 65, 2)
"""Where the product is faster: it does the width of the image times the work."""


class AveragePool(nn.AvgPool2d):
    """Halves height and width of images (B, C, H, W) by the mean of 2 x 2; an odd last row or column is left out."""

    def __init__(self) -> None:
        super().__init__(2)

    def _get_name(self) -> str:
        return nn.AvgPool2d.__name__

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Means (B, C, H // 2, W // 2)."""
        *_, height, width = x_BCHW.shape
        if height % 2 or width not in WIDTHS or not _gains(x_BCHW):
            return super().forward(x_BCHW)
        means = x_BCHW.reshape(-1, 2 * width) @ _quarters(width, x_BCHW.dtype)
        return means.view(*x_BCHW.shape[:-2], height // 2, width // 2)


def _gains(x_BCHW: Tensor) -> bool:
    """Whether the product is right and faster for these images."""
    if torch.compiler.is_compiling():
        return False  # fused with what stands around it
    if torch._C._len_torch_dispatch_stack():
        return False  # whoever counts operations or bytes shall see pooling, and no product
    if x_BCHW.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False  # autocast rounds products, and leaves pooling alone
    return x_BCHW.dtype in (torch.float32, torch.float64) and x_BCHW.is_contiguous()


@lru_cache(maxsize=2 * len(WIDTHS))
def _quarters(width: int, dtype: torch.dtype) -> Tensor:
    """What two rows (2 W) are multiplied with to become one of means (W // 2)."""
    quarters = np.zeros((2, width // 2, 2, width // 2))
    halves = np.arange(width // 2)
    quarters[:, halves, :, halves] = 0.25
    with torch.inference_mode(False):  # it may be kept from here on for gradients
        return torch.from_numpy(quarters.reshape(2 * width, width // 2)).to(dtype)
