"""Where theta_0 .. theta_{N-1} wait for the reverse sweep: last in, first out."""

from typing import Protocol

import torch
from torch import Tensor


class Stored(Protocol):
    """A stack of parameter vectors. What is popped has the bits of what was pushed."""

    def push(self, theta_P: Tensor) -> None: ...

    def pop(self) -> Tensor: ...


class OnDevice:
    """On the device that computes: N P numbers there."""

    def __init__(self) -> None:
        self._thetas: list[Tensor] = []

    def push(self, theta_P: Tensor) -> None:
        """Keep a reference; the unroll never changes a theta in place."""
        self._thetas.append(theta_P)

    def pop(self) -> Tensor:
        """The newest, which is then no longer kept."""
        return self._thetas.pop()


class OnHost:
    """In the host's memory, for unrolls too deep for the device; one step's copy runs ahead of its use."""

    def __init__(self) -> None:
        self._thetas: list[Tensor] = []
        self._next: Tensor | None = None
        self._device = torch.device("cpu")

    def push(self, theta_P: Tensor) -> None:
        """Copy to the host; from a GPU into pinned memory, beside the computation."""
        self._device = theta_P.device
        on_gpu = theta_P.is_cuda
        host = torch.empty(theta_P.shape, dtype=theta_P.dtype, pin_memory=on_gpu)
        host.copy_(theta_P, non_blocking=on_gpu)
        self._thetas.append(host)

    def pop(self) -> Tensor:
        """The newest, back on the device; starts the copy of the one below it."""
        theta = self._next if self._next is not None else self._fetch()
        self._next = self._fetch() if self._thetas else None
        return theta

    def _fetch(self) -> Tensor:
        return self._thetas.pop().to(self._device, non_blocking=True)
