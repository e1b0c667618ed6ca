"""Count the bytes of all tensors alive at a time."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Counter(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.alive, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._see(leaf.untyped_storage())
        return out

    def _see(self, storage):
        address = storage._cdata
        if address in self.alive:
            return
        size = storage.nbytes()
        self.alive[address] = weakref.finalize(storage, self._gone, address, size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _gone(self, address, size):
        self.alive.pop(address, None)
        self.now -= size


def peak_live_bytes(function) -> int:
    """Largest total size of the storages that ``function`` made and that were alive at once."""
    with _Counter() as counter:
        function()
    return counter.peak
