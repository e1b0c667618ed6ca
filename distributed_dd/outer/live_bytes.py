"""Count the bytes of all tensors alive at a time: exact, whatever allocator and neighbours do."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """While entered, follows every storage that an operation of this thread makes.

    Attributes:
        now: bytes of those that live. peak: the most that lived at once since `from_now_on`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._alive: dict[int, Any] = {}
        self.now = self.peak = 0

    def from_now_on(self) -> None:
        """Forget earlier peaks."""
        self.peak = self.now

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._see(leaf.untyped_storage())
        return out

    def _see(self, storage: torch.UntypedStorage) -> None:
        address = storage._cdata
        if address in self._alive:
            return
        size = storage.nbytes()
        self._alive[address] = weakref.finalize(storage, self._gone, address, size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _gone(self, address: int, size: int) -> None:
        self._alive.pop(address, None)
        self.now -= size


def peak_live_bytes(function: Callable[[], Any]) -> int:
    """Largest total size of the storages that ``function`` made and that were alive at once."""
    with LiveBytes() as counter:
        function()
    return counter.peak
