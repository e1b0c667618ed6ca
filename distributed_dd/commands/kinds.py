"""Everything that can be typed in a configuration, or the part of it that a word names."""

import dataclasses
import sys
import typing
from argparse import Namespace
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from distributed_dd.backends.clusters import CLUSTERS
from distributed_dd.backends.local.terminal import terminal
from distributed_dd.diagnosing import Diagnose
from distributed_dd.evaluation.elsewhere import Elsewhere
from distributed_dd.experiment import Experiment, lifted_groups
from distributed_dd.family import Family
from distributed_dd.listing.parts import Catalogue, Part
from distributed_dd.listing.settings import rows_of
from distributed_dd.methods import DIMENSIONS, METHODS, Sampling
from distributed_dd.search.sweep import Sweep

WIDTH_OF_A_FILE = 160


def kinds(options: Namespace) -> int:
    """All keys and families, through a pager on a terminal; or the part that a word names, in columns."""
    if options.words:
        parts = _catalogue().parts(" ".join(options.words))
        console = terminal()
        if not console.is_terminal:
            console.width = WIDTH_OF_A_FILE
        for number, part in enumerate(parts):
            _print_part(console, part, first=number == 0)
        return 0
    console = terminal(soft_wrap=True)
    reads_along = sys.stdin.isatty() and sys.stdout.isatty()
    with console.pager() if reads_along else nullcontext():
        _print_everything(console)
    return 0


def _print_everything(console: Console) -> None:
    """The keys of a configuration, then every family with its members and their settings."""
    console.print(Text.from_markup("[bold]a configuration[/bold] (FILE of run, show ..)"))
    _settings(console, Experiment, "  ")
    for name, kinds_with_it in lifted_groups().items():
        console.print(f"  {name} (a group, with method.kind {' or '.join(kinds_with_it)})")
        _settings(console, _lifted(name), "      ")
    for elsewhere in _elsewheres():
        console.print(Text.from_markup(f"\n[bold]evaluate FOLDER[/bold] key=value, the folder of {elsewhere.thing}"))
        _settings(console, elsewhere.settings, "  ")
    console.print(Text.from_markup("\n[bold]sample FOLDER[/bold] key=value"))
    _settings(console, Sampling, "  ")
    console.print(Text.from_markup("\n[bold]diagnose FILE[/bold] diagnose.key=value"))
    _settings(console, Diagnose, "  ")
    console.print(Text.from_markup("\n[bold]a sweep[/bold] (FILE of tune)"))
    _settings(console, Sweep, "  ")
    for family in _families():
        console.print(Text.from_markup(f"\n[bold]{family.name}[/bold], chosen by kind"))
        for kind, cls in family.members.items():
            console.print(f"  {kind}: {(cls.__doc__ or '').strip().splitlines()[0]}", markup=False)
            _settings(console, cls, "      ")


def _settings(console: Console, cls: Any, indent: str) -> None:
    """A line for each setting: name, type, default, meaning."""
    for row in rows_of(cls):
        what = f"{row.type}, {row.default}" if row.default else row.type
        console.print(f"{indent}{'    ' * row.depth}{row.name} ({what}): {row.meaning}", markup=False)


def _print_part(console: Console, part: Part, first: bool) -> None:
    title = Text(part.title, style="bold")
    console.print(title if first else Text("\n") + title)
    if part.about:
        console.print(f"  {part.about}")
    if not part.rows:
        return
    columns = (Column("setting", no_wrap=True), Column("type"), Column("default"), Column("meaning"))
    table = Table(*columns, box=None, header_style="italic", padding=(0, 2, 0, 0))
    for row in part.rows:
        table.add_row(f"  {'  ' * row.depth}{row.name}", row.type, row.default, row.meaning)
    console.print(table)


def _catalogue() -> Catalogue:
    """What a word may name; of two groups that have a setting of its name the first counts."""
    lifted = {name: _lifted(name) for name in lifted_groups()}
    groups = {"configuration": Experiment, **lifted, "sweep": Sweep, "sample": Sampling, "diagnose": Diagnose}
    return Catalogue(groups, _families())


def _lifted(name: str) -> Any:
    """The group that methods have and people write at the top level."""
    return typing.get_type_hints(METHODS.members[lifted_groups()[name][0]])[name]


def _elsewheres() -> list[type[Elsewhere]]:
    """What of any method can be tried on other networks, each once."""
    return list(dict.fromkeys(kind for cls in METHODS.members.values() for kind in cls.tried_elsewhere))


def _families() -> list[Family]:
    """Every family that can be chosen from in a file or for a folder."""
    settings = [elsewhere.settings for elsewhere in _elsewheres()]
    return _families_of([Experiment, *settings, Sampling, Sweep], [CLUSTERS, DIMENSIONS])


def _families_of(groups: Sequence[type], more: Sequence[Family]) -> list[Family]:
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
