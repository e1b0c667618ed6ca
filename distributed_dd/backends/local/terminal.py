"""The terminal, for tables and lines that hold names of people and data."""

from typing import Any

from rich.console import Console


def terminal(**settings: Any) -> Console:
    """A console that shows text as it is: ``[red]`` or ``:smile:`` in a name is no order to it."""
    return Console(highlight=False, markup=False, emoji=False, **settings)
