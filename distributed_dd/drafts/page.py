"""A configuration as a file that explains itself: each key with what it means, in a phrase."""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from distributed_dd.experiment import Experiment, lifted_groups
from distributed_dd.methods import METHODS

COMMENTS_FROM = 44
LONGEST_LINE = 118


def page(values: Mapping[str, Any], head: list[str]) -> str:
    """``values``, as people write them, as YAML with comments; ``head``: comments at its top."""
    hints = typing.get_type_hints(Experiment)
    fields = {field.name: (field, hints[field.name]) for field in dataclasses.fields(Experiment)}
    method = METHODS.members[values["method"]["kind"]]
    own = typing.get_type_hints(method)
    for field in dataclasses.fields(method):
        if field.name in lifted_groups():
            fields[field.name] = (field, own[field.name])
    lines = [f"# {line}".rstrip() for line in head]
    return "\n".join([*lines, *_lines(values, fields, "")]) + "\n"


Fields = Mapping[str, tuple[dataclasses.Field, Any]]


def _lines(values: Mapping[str, Any], fields: Fields, indent: str) -> Iterator[str]:
    for key, value in values.items():
        field, hint = fields[key]
        meaning, family = field.metadata.get("meaning", ""), field.metadata.get("family")
        if not isinstance(value, Mapping):
            yield _line(f"{indent}{key}: {_scalar(value)}", meaning)
            continue
        yield _line(f"{indent}{key}:", meaning)
        rest = dict(value)
        if family is not None:
            kind = rest.pop("kind", None) or family.kind_of(field.default)
            hint = family.members[kind]
            others = [other for other in family.members if other != kind]
            yield _line(f"{indent}  kind: {kind}", f"or {', '.join(others)}" if others else "")
        hints = typing.get_type_hints(hint)
        inner = {field.name: (field, hints[field.name]) for field in dataclasses.fields(hint)}
        yield from _lines(rest, inner, f"{indent}  ")


def _line(text: str, comment: str) -> str:
    """A line with a comment behind it, cut to a phrase where it is long."""
    if not comment:
        return text
    line = f"{text:<{COMMENTS_FROM}}"
    room = LONGEST_LINE - len(line) - len("  # ")
    short = comment if len(comment) <= room else comment.partition("; ")[0].partition(" (")[0]
    if len(short) > room:
        short = short[: max(0, room - 3)].rpartition(" ")[0].rstrip(",:") + " .."
    return f"{line}  # {short}" if room > len("..") else text


def _scalar(value: Any) -> str:
    """A value, or a list, as YAML on one line; ``${`` in a text is no reference."""
    if isinstance(value, str):
        value = value.replace("${", r"\${")
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).removesuffix("...\n").strip()
    )
