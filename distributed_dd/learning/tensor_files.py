"""Tensors in safetensors files: read whole, and looked at for numbers that are not finite."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from distributed_dd.durable import RESTORE, refuse_irregular
from distributed_dd.errors import IntegrityError


def load_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        MissingInputError: there is no such file. IntegrityError: it cannot be read as safetensors.
    """
    refuse_irregular(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise IntegrityError(str(path), f"cannot be read: {error}", fix=RESTORE) from None


def is_finite(tensor: Tensor) -> bool:
    """Whether every number is; whole numbers always are."""
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def refuse_not_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse tensors with a number that is not finite.

    Raises:
        IntegrityError: one has; the message names all such tensors.
    """
    if bad := [name for name, tensor in tensors.items() if not is_finite(tensor)]:
        raise IntegrityError(where, f"{', '.join(sorted(bad))} holds numbers that are not finite", fix=RESTORE)


def require_shapes(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int | None, ...]], where: str) -> None:
    """Refuse tensors that are missing or of another shape; None in a shape stands for any size.

    Raises:
        IntegrityError: the first that does not fit.
    """
    for name, wanted in shapes.items():
        allowed = f"({', '.join('n' if size is None else str(size) for size in wanted)})"
        if name not in tensors:
            raise IntegrityError(where, f"has no {name}", allowed=f"{name} {allowed}", fix=RESTORE)
        shape = tuple(tensors[name].shape)
        if len(shape) != len(wanted) or any(a not in (None, b) for a, b in zip(wanted, shape, strict=True)):
            raise IntegrityError(where, f"{name} is {shape}", allowed=allowed, fix=RESTORE)
