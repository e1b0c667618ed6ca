"""Short names of fields of a configuration, for tables and for columns of a tracker: each method's own."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from distributed_dd.evaluation.words import tracked
from distributed_dd.methods import words_by_kind
from distributed_dd.nested import at


@cache
def _short() -> dict[str, str]:
    """``key.path`` -> short name, over all methods."""
    return {key: name for words in words_by_kind().values() for key, name in words.parameters.items()}


def short(key: str) -> str:
    """A field's name in a table."""
    return _short().get(key, key.removeprefix("method."))


def parameter(key: str) -> str:
    """A field's name in a tracker, where signs are not allowed: T_minus, lr_images; or the field's own."""
    return tracked(_short()[key]) if key in _short() else key


def headline(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields by which runs are compared first, by short name; those that the configuration has."""
    named = {parameter(key): at(values, key) for key in _short()}
    return {
        name: f"{value:g}" if isinstance(value, float) else value for name, value in named.items() if value is not None
    }


def rank(key: str) -> int:
    """The place of a field among those by which runs are compared; others come last."""
    known = list(_short())
    return known.index(key) if key in known else len(known)
