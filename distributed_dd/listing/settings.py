"""The settings of a group as rows: name, type, default, meaning."""

import dataclasses
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from distributed_dd.family import describe_type


@dataclass(frozen=True)
class Row:
    """One setting in words; ``depth`` is 0 for those of the group itself, more for those of groups in it.

    ``default`` is ``required`` where there is none, and empty for a group, whose settings have their own.
    """

    name: str
    type: str
    default: str
    meaning: str
    depth: int = 0


def rows_of(cls: Any, group_default: Any = None, depth: int = 0) -> Iterator[Row]:
    """A row for each setting; groups that are no family go deeper.

    Args:
        group_default: the group that stands where none is given, whose values are then the defaults.
    """
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if field.metadata.get("lifted"):
            continue  # listed where people write it
        hint = hints[field.name]
        yield row_of(field, hint, group_default, depth)
        if is_group(field, hint):
            yield from rows_of(hint, group_of(field, hint, group_default), depth + 1)


def row_of(field: dataclasses.Field, hint: Any, group_default: Any = None, depth: int = 0) -> Row:
    """One setting alone."""
    family = field.metadata.get("family")
    what = "a group" if is_group(field, hint) else describe_type(hint)
    if family is not None:
        what = f"{'a list of kinds' if field.metadata.get('many') else 'one of the kinds'} of {family.name}"
    if _has_numbers(hint) and (limits := field.metadata.get("range")):
        what += f": {limits}"
    return Row(field.name, what, _default(field, family, group_default), field.metadata.get("meaning", ""), depth)


def is_group(field: dataclasses.Field, hint: Any) -> bool:
    """Whether a field holds a group of settings that is chosen by no kind."""
    return field.metadata.get("family") is None and dataclasses.is_dataclass(hint)


def group_of(field: dataclasses.Field, hint: Any, group_default: Any) -> Any:
    """The group that stands in a field where none is given; None where one must be given."""
    own = getattr(group_default, field.name, field.default)
    if own is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
        own = field.default_factory()
    return own if isinstance(own, hint) else None


def _has_numbers(hint: Any) -> bool:
    """Whether a value of this type is a number, or may hold one."""
    return hint in (int, float) or any(_has_numbers(inner) for inner in typing.get_args(hint))


def _default(field: dataclasses.Field, family: Any, group_default: Any) -> str:
    value = getattr(group_default, field.name, field.default)
    if value is dataclasses.MISSING:
        return "" if field.default_factory is not dataclasses.MISSING else "required"
    if value is None:
        return "null"
    if field.metadata.get("many"):
        return "[" + ", ".join(family.kind_of(member) for member in value) + "]"
    if family is not None:
        return family.kind_of(value)
    if dataclasses.is_dataclass(value):
        return ""
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
