"""Student steps that keep what their way back needs, the last ones, as many as fit in some memory.

A step that is replayed repeats its forward pass and its gradient; one that was kept does not. Per step of the
student that is 3 of 12 forward passes.
"""

from collections import OrderedDict
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from distributed_dd.unroll.problem import Gradient

Slopes = tuple[Tensor, Tensor, list[Tensor | None]]
Reverse = Callable[..., Slopes]
"""From theta (P,), v (P,) and the tensors of a batch to s = <g, v>, ds/dtheta and ds/d(tensors of the batch)."""

_BYTES: MutableMapping[Any, dict[tuple, int]] = WeakKeyDictionary()
"""Bytes that a step of a student keeps, by the shapes of what goes in: each is measured once."""


class KeptSteps:
    """The gradient of a student for its forward sweep, and the way back through each step.

    Steps are counted by calls of `gradient`. All of them are differentiated in one way, whether they are kept or
    replayed, so that ``memory`` decides about no bit of a result.

    Args:
        plain: a gradient for the steps that nothing is carried back through.
        memory: bytes for the graphs of steps, beside the newest one, which is kept in any case.
        first_back: the first step that something is carried back through.
    """

    def __init__(self, student: Any, plain: Gradient, memory: int, first_back: int) -> None:
        self._student, self._plain, self._memory, self._first_back = student, plain, memory, first_back
        self._graphs: OrderedDict[int, tuple[list[Tensor], Tensor, int]] = OrderedDict()
        self._step = 0

    @property
    def num_kept(self) -> int:
        """Steps that are kept now."""
        return len(self._graphs)

    def gradient(self, theta_P: Tensor, *batch: Tensor) -> Tensor:
        """g (P,) of the next step, without a graph; the step is kept, and the oldest ones go that do not fit."""
        step, self._step = self._step, self._step + 1
        if step < self._first_back:
            return self._plain(theta_P, *batch)
        leaves, g = differentiable(self._student, theta_P, *batch)
        self._graphs[step] = leaves, g, bytes_of_a_step(self._student, theta_P, *batch)
        while len(self._graphs) > 1 and sum(size for _, _, size in self._graphs.values()) > self._memory:
            self._graphs.popitem(last=False)
        return g.detach()

    def reverse_of(self, step: int) -> Reverse:
        """The way back through a step; what was kept of it is gone afterwards."""
        kept = self._graphs.pop(step, None)

        def reverse(theta_P: Tensor, vector_P: Tensor, *batch: Tensor) -> Slopes:
            leaves, g = kept[:2] if kept else differentiable(self._student, theta_P, *batch)
            with torch.enable_grad():
                s = torch.dot(g, vector_P)
            return slopes(s, leaves)

        return reverse


def differentiable(student: Any, theta_P: Tensor, *batch: Tensor) -> tuple[list[Tensor], Tensor]:
    """What g can be differentiated by (theta, and the tensors of the batch), and g (P,) with its graph."""
    with torch.enable_grad():
        leaves = [leaf(tensor) for tensor in (theta_P, *batch)]
        (g,) = torch.autograd.grad(student.loss(*leaves), leaves[0], create_graph=True)
    return leaves, g


def bytes_of_a_step(student: Any, theta_P: Tensor, *batch: Tensor) -> int:
    """Bytes that the graph of g holds on to, beside theta and the batch; measured on the first step of its kind."""
    kind = tuple((tuple(t.shape), t.dtype, t.device) for t in (theta_P, *batch))
    known = _BYTES.setdefault(student, {})
    if kind not in known:
        known[kind] = _measured_bytes(student, theta_P, *batch)
    return known[kind]


def _measured_bytes(student: Any, theta_P: Tensor, *batch: Tensor) -> int:
    """Counts storages as they are saved for a backward pass; the graph itself is thrown away."""
    ours = {tensor.untyped_storage().data_ptr() for tensor in (theta_P, *batch)}
    saved: dict[int, Tensor] = {}  # kept until all are counted: an address that is freed may come again

    def pack(tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        address = tensor.untyped_storage().data_ptr()
        if address not in ours:
            saved[address] = tensor
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        _, g = differentiable(student, theta_P, *batch)
    return g.nbytes + sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


def leaf(tensor: Tensor) -> Tensor:
    """Whole numbers, such as class indices, have no gradient."""
    tensor = tensor.detach()
    return tensor.requires_grad_() if tensor.is_floating_point() else tensor


def slopes(s: Tensor, leaves: Sequence[Tensor]) -> Slopes:
    """s without its graph, ds/dtheta and ds/d(tensors of the batch), None for whole numbers."""
    asked = [tensor for tensor in leaves if tensor.requires_grad]
    each = iter(torch.autograd.grad(s, asked, allow_unused=True, materialize_grads=True))
    ds_theta, *ds_batch = [next(each) if tensor.requires_grad else None for tensor in leaves]
    assert ds_theta is not None
    return s.detach(), ds_theta, ds_batch
