"""distributed_dd: distil a data set into a small synthetic one, from a laptop to a GPU cluster.

    run                 everything: experts, distil, evaluate, report; gives a Result
    distill             until the distilled set, without a test; gives a Result
    evaluate            a result on other networks or by another protocol; a set of others
    tune                search settings for each number of images per class; gives a TuneResult
    report              a finished run opened, or runs side by side; computes nothing
    Result              a run: its set, rows, accuracy, metrics, figures, folder, report
    TuneResult          a sweep: its trials as rows, the best configurations as files
    Comparison          runs side by side: rows, figures, folder
    Evaluated           what networks reached on a result: rows, page
    load_distilled      a distilled set from its folder, as a data set of PyTorch
    load_real           real images of a result, a configuration or a data set, likewise
    load_generator      a distilled generator from its folder: sets of any size
    matching_gradient   the gradient of trajectory matching, of plain tensors
    unrolled_gradient   the gradient of any loss through a student's training
    Student             a network as a function of its parameters, for both
    Replayed            their exact way of differentiating at constant memory, with its settings
    UserError           base of all errors that a person can act on
    ConfigError         one of them: a configuration that cannot be run as it stands
    __version__         of this package

Configurations have names, such as digits/datm_ipc10; docs/use/python.md shows all this at work. Importing the package
loads none of torch, ray, deepspeed or mlflow; the names above arrive on use.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "Comparison",
    "ConfigError",
    "Evaluated",
    "Replayed",
    "Result",
    "Student",
    "TuneResult",
    "UserError",
    "__version__",
    "distill",
    "evaluate",
    "load_distilled",
    "load_generator",
    "load_real",
    "matching_gradient",
    "report",
    "run",
    "tune",
    "unrolled_gradient",
]

_HOMES = {
    "run": "distributed_dd.api.calls",
    "distill": "distributed_dd.api.calls",
    "evaluate": "distributed_dd.api.calls",
    "tune": "distributed_dd.api.calls",
    "report": "distributed_dd.api.calls",
    "Result": "distributed_dd.api.results",
    "TuneResult": "distributed_dd.api.results",
    "Comparison": "distributed_dd.verbs",
    "Evaluated": "distributed_dd.folder_evaluation",
    "load_distilled": "distributed_dd.evaluation.artefact",
    "load_real": "distributed_dd.api.real",
    "load_generator": "distributed_dd.methods.generative.artefact",
    "matching_gradient": "distributed_dd.unroll.public",
    "unrolled_gradient": "distributed_dd.unroll.public",
    "Student": "distributed_dd.learning.flat",
    "Replayed": "distributed_dd.unroll",
    "UserError": "distributed_dd.errors",
    "ConfigError": "distributed_dd.errors",
}

if TYPE_CHECKING:
    from distributed_dd.api.calls import distill, evaluate, report, run, tune
    from distributed_dd.api.real import load_real
    from distributed_dd.api.results import Result, TuneResult
    from distributed_dd.errors import ConfigError, UserError
    from distributed_dd.evaluation.artefact import load_distilled
    from distributed_dd.folder_evaluation import Evaluated
    from distributed_dd.learning.flat import Student
    from distributed_dd.methods.generative.artefact import load_generator
    from distributed_dd.unroll import Replayed
    from distributed_dd.unroll.public import matching_gradient, unrolled_gradient
    from distributed_dd.verbs import Comparison


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'distributed_dd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
