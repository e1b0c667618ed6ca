"""Methods by kind: one file each. MTT, FTD, TESLA and DATM are one kind with other settings."""

from distributed_dd.distillation.methods.trajectory_matching import TrajectoryMatching
from distributed_dd.family import Family

METHODS = Family("method", {"trajectory_matching": TrajectoryMatching})
