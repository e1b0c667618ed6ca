"""The terminal, for tables and lines that hold names of people and data."""

from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from distributed_dd.secrecy import without_secrets


class _Terminal(Console):
    def print(self, *objects: Any, **settings: Any) -> None:
        """Print, without the secrets in texts."""
        super().print(*(without_secrets(value) if isinstance(value, str) else value for value in objects), **settings)


def terminal(**settings: Any) -> Console:
    """A console that shows text as it is: ``[red]`` or ``:smile:`` in a name is no order to it."""
    return _Terminal(highlight=False, markup=False, emoji=False, **settings)


def under(title: str, table: Table) -> Group:
    """A table below its title; a table's own title is filled up with blanks to the table's width."""
    return Group(Text(without_secrets(title), style="table.title"), table)
