"""Everything that can be typed in a configuration."""

import dataclasses
import typing
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from distributed_dd.backends.clusters import CLUSTERS
from distributed_dd.backends.local.terminal import terminal
from distributed_dd.diagnosing import Diagnose
from distributed_dd.evaluation.elsewhere import Elsewhere
from distributed_dd.experiment import Experiment, lifted_groups
from distributed_dd.family import Family, describe_type
from distributed_dd.methods import DIMENSIONS, METHODS, Sampling
from distributed_dd.search.sweep import Sweep


def kinds(options: Namespace) -> int:
    """The keys of a configuration, then every family with its members and their settings."""
    console = terminal(soft_wrap=True)
    console.print(Text.from_markup("[bold]a configuration[/bold] (FILE of run, show ..)"))
    _settings(console, Experiment, "  ")
    for name, kinds_with_it in lifted_groups().items():
        console.print(f"  {name} (a group, with method.kind {' or '.join(kinds_with_it)})")
        group = METHODS.members[kinds_with_it[0]]
        _settings(console, typing.get_type_hints(group)[name], "      ")
    for elsewhere in _elsewheres():
        console.print(Text.from_markup(f"\n[bold]evaluate FOLDER[/bold] key=value, the folder of {elsewhere.thing}"))
        _settings(console, elsewhere.settings, "  ")
    console.print(Text.from_markup("\n[bold]sample FOLDER[/bold] key=value"))
    _settings(console, Sampling, "  ")
    console.print(Text.from_markup("\n[bold]diagnose FILE[/bold] diagnose.key=value"))
    _settings(console, Diagnose, "  ")
    console.print(Text.from_markup("\n[bold]a sweep[/bold] (FILE of tune)"))
    _settings(console, Sweep, "  ")
    for family in _families([Experiment, *_elsewhere_settings(), Sampling, Sweep], [CLUSTERS, DIMENSIONS]):
        console.print(Text.from_markup(f"\n[bold]{family.name}[/bold], chosen by kind"))
        for kind, cls in family.members.items():
            console.print(f"  {kind}: {(cls.__doc__ or '').strip().splitlines()[0]}", markup=False)
            _settings(console, cls, "      ")
    return 0


def _elsewheres() -> list[type[Elsewhere]]:
    """What of any method can be tried on other networks, each once."""
    return list(dict.fromkeys(kind for cls in METHODS.members.values() for kind in cls.tried_elsewhere))


def _elsewhere_settings() -> list[type]:
    return [elsewhere.settings for elsewhere in _elsewheres()]


def _families(groups: Sequence[type], more: Sequence[Family]) -> list[Family]:
    """Every family that a field of these groups, or of what may stand in them, is chosen from; each once."""
    known: dict[str, Family] = {}

    def enter(family: Family) -> None:
        if family.name not in known:
            known[family.name] = family
            for member in family.members.values():
                look(member)

    def look(cls: Any) -> None:
        hints = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            family = field.metadata.get("family")
            if family is not None:
                enter(family)
            elif dataclasses.is_dataclass(hints[field.name]):
                look(hints[field.name])

    for cls in groups:
        look(cls)
    for family in more:
        enter(family)
    return list(known.values())


def _settings(console: Console, cls: Any, indent: str, group_default: Any = None) -> None:
    """A line for each field: name, type, default, meaning; groups that are no family go deeper.

    ``group_default``: the group that stands where none is given, whose values are then the defaults.
    """
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if field.metadata.get("lifted"):
            continue  # listed where people write it
        family, hint = field.metadata.get("family"), hints[field.name]
        group = family is None and dataclasses.is_dataclass(hint)
        what = "a group" if group else describe_type(hint)
        if family is not None:
            what = f"{'a list of kinds' if field.metadata.get('many') else 'one of the kinds'} of {family.name}"
        if _has_numbers(hint) and (limits := field.metadata.get("range")):
            what += f": {limits}"
        meaning = field.metadata.get("meaning", "")
        console.print(f"{indent}{field.name} ({what}{_default(field, family, group_default)}): {meaning}", markup=False)
        if group:
            own = getattr(group_default, field.name, field.default)
            _settings(console, hint, indent + "    ", own if isinstance(own, hint) else None)


def _has_numbers(hint: Any) -> bool:
    """Whether a value of this type is a number, or may hold one."""
    return hint in (int, float) or any(_has_numbers(inner) for inner in typing.get_args(hint))


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
