"""distributed_dd: distil a data set into a small synthetic one, from a laptop to a GPU cluster.

Importing the package loads none of torch, ray, deepspeed or mlflow; the names below arrive on use.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "Replayed",
    "Student",
    "__version__",
    "load_distilled",
    "load_generator",
    "load_real",
    "matching_gradient",
    "unrolled_gradient",
]

_HOMES = {
    "matching_gradient": "distributed_dd.unroll.public",
    "unrolled_gradient": "distributed_dd.unroll.public",
    "Student": "distributed_dd.learning.flat",
    "Replayed": "distributed_dd.unroll",
    "load_distilled": "distributed_dd.evaluation.artefact",
    "load_real": "distributed_dd.evaluation.real_images",
    "load_generator": "distributed_dd.methods.generative.artefact",
}

if TYPE_CHECKING:
    from distributed_dd.evaluation.artefact import load_distilled
    from distributed_dd.evaluation.real_images import load_real
    from distributed_dd.learning.flat import Student
    from distributed_dd.methods.generative.artefact import load_generator
    from distributed_dd.unroll import Replayed
    from distributed_dd.unroll.public import matching_gradient, unrolled_gradient


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'distributed_dd' has no attribute {name!r}")
