"""The table of methods. To add one: write its file here, and its line below (docs/extend.md).

MTT, FTD, TESLA and DATM are one kind with other settings; so are DC and DSA; so are FrePo and RFAD; so are DD, BPTT
and RaT-BPTT; so are DiM, a conditional GAN and the distillation of global structure and local details.
"""

from collections.abc import Mapping

from distributed_dd.evaluation.words import Words
from distributed_dd.family import Family
from distributed_dd.methods.distribution_matching import DistributionMatching
from distributed_dd.methods.feature_alignment.method import FeatureAlignment
from distributed_dd.methods.generative.artefact import load_generator
from distributed_dd.methods.generative.method import Generative
from distributed_dd.methods.generative.sampling import Sampling, write_sample
from distributed_dd.methods.gradient_matching import GradientMatching
from distributed_dd.methods.kernel_regression.method import KernelRegression
from distributed_dd.methods.neural_features.method import NeuralFeatures
from distributed_dd.methods.performance_matching.method import PerformanceMatching
from distributed_dd.methods.trajectory_matching.method import TrajectoryMatching
from distributed_dd.search.space import SIMPLE_DIMENSIONS

METHODS = Family(
    "method",
    {
        "trajectory_matching": TrajectoryMatching,
        "generative": Generative,
        "distribution_matching": DistributionMatching,
        "gradient_matching": GradientMatching,
        "neural_features": NeuralFeatures,
        "feature_alignment": FeatureAlignment,
        "kernel_regression": KernelRegression,
        "performance_matching": PerformanceMatching,
    },
)

FIRST_CHOICE = "distribution_matching"
"""What a first configuration has: nothing is made beforehand, and one rate has served on every data set."""

DIMENSIONS = Family(
    "dimension",
    {
        **{kind: cls for method in METHODS.members.values() for kind, cls in method.dimensions.items()},
        **SIMPLE_DIMENSIONS,
    },
)
"""Dimensions of a sweep: those that only one method has, and those of any field."""


def words_by_kind() -> Mapping[str, Words]:
    """What people see of each kind."""
    return {kind: cls.words for kind, cls in METHODS.members.items()}


__all__ = ["DIMENSIONS", "FIRST_CHOICE", "METHODS", "Sampling", "load_generator", "words_by_kind", "write_sample"]
