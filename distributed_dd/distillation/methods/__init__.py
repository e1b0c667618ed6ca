"""Methods by kind: one file each. MTT, FTD, TESLA and DATM are one kind with other settings; so are DiM, a
conditional GAN and the distillation of global structure and local details."""

from distributed_dd.distillation.methods.generative import Generative
from distributed_dd.distillation.methods.trajectory_matching import TrajectoryMatching
from distributed_dd.family import Family

Method = TrajectoryMatching | Generative
METHODS = Family("method", {"trajectory_matching": TrajectoryMatching, "generative": Generative})

__all__ = ["METHODS", "Generative", "Method", "TrajectoryMatching"]
