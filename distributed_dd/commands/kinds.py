"""Everything that can be typed in a configuration."""

import dataclasses
import typing
from argparse import Namespace
from typing import Any

from rich.console import Console

from distributed_dd.backends.clusters import CLUSTERS
from distributed_dd.backends.engines import ENGINES
from distributed_dd.commands.sample import Sampling
from distributed_dd.data import DATA_SETS, PREPROCESSINGS
from distributed_dd.distillation.augment import AUGMENTATIONS
from distributed_dd.distillation.labels import LABELS
from distributed_dd.distillation.methods import METHODS
from distributed_dd.distillation.networks import NETWORKS
from distributed_dd.distillation.segments import SEGMENTS
from distributed_dd.distillation.starts import STARTS
from distributed_dd.distillation.unroll import UNROLLS
from distributed_dd.family import describe_type
from distributed_dd.stages.cross_architecture import CrossArchitecture
from distributed_dd.stages.experiment import Experiment
from distributed_dd.stages.generator_evaluation import GeneratorEvaluation
from distributed_dd.stages.space import DIMENSIONS
from distributed_dd.stages.sweep import SCHEDULES, SEARCHES, Sweep
from distributed_dd.training.curriculum import CURRICULA
from distributed_dd.training.optimizers import OPTIMIZERS
from distributed_dd.trajectories.forms import FORMS

FAMILIES = (
    DATA_SETS, PREPROCESSINGS, NETWORKS, METHODS, SEGMENTS, STARTS, LABELS, AUGMENTATIONS, UNROLLS,
    OPTIMIZERS, CURRICULA, FORMS, CLUSTERS, ENGINES,
    DIMENSIONS, SEARCHES, SCHEDULES,
)  # fmt: skip


def kinds(options: Namespace) -> int:
    """The keys of a configuration, then every family with its members and their settings."""
    console = Console(highlight=False, soft_wrap=True)
    console.print("[bold]a configuration[/bold] (FILE of run, show ..)")
    _settings(console, Experiment, "  ")
    console.print("\n[bold]evaluate FOLDER[/bold] key=value, the folder of a set")
    _settings(console, CrossArchitecture, "  ")
    console.print("\n[bold]evaluate FOLDER[/bold] key=value, the folder of a generator")
    _settings(console, GeneratorEvaluation, "  ")
    console.print("\n[bold]sample FOLDER[/bold] key=value")
    _settings(console, Sampling, "  ")
    console.print("\n[bold]a sweep[/bold] (FILE of tune)")
    _settings(console, Sweep, "  ")
    for family in FAMILIES:
        console.print(f"\n[bold]{family.name}[/bold], chosen by kind")
        for kind, cls in family.members.items():
            console.print(f"  {kind}: {(cls.__doc__ or '').strip().splitlines()[0]}", markup=False)
            _settings(console, cls, "      ")
    return 0


def _settings(console: Console, cls: Any, indent: str, group_default: Any = None) -> None:
    """A line for each field: name, type, default, meaning; groups that are no family go deeper.

    ``group_default``: the group that stands where none is given, whose values are then the defaults.
    """
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        family, hint = field.metadata.get("family"), hints[field.name]
        group = family is None and dataclasses.is_dataclass(hint)
        what = "a group" if group else describe_type(hint)
        if family is not None:
            what = (
                f"{'a list of kinds' if field.metadata.get('many') else 'one of the kinds'} of {family.name}"
            )
        meaning = field.metadata.get("meaning", "")
        console.print(
            f"{indent}{field.name} ({what}{_default(field, family, group_default)}): {meaning}", markup=False
        )
        if group:
            own = getattr(group_default, field.name, field.default)
            _settings(console, hint, indent + "    ", own if isinstance(own, hint) else None)


def _default(field: dataclasses.Field, family: Any, group_default: Any) -> str:
    value = getattr(group_default, field.name, field.default)
    if value is dataclasses.MISSING:
        return "" if field.default_factory is not dataclasses.MISSING else ", required"
    if value is None:
        return ", null"
    if field.metadata.get("many"):
        return ", [" + ", ".join(family.kind_of(member) for member in value) + "]"
    if family is not None:
        return f", {family.kind_of(value)}"
    if dataclasses.is_dataclass(value):
        return ""
    if isinstance(value, tuple):
        return f", [{', '.join(map(str, value))}]"
    return f", {str(value).lower() if isinstance(value, bool) else value}"
