"""The schema of everything that can be configured, walked: its groups, their fields, and what each may hold."""

import dataclasses
import math
import types
import typing
from collections.abc import Iterator
from dataclasses import MISSING
from typing import Any

from distributed_dd.diagnosing import Diagnose
from distributed_dd.experiment import Experiment
from distributed_dd.methods import METHODS, Sampling
from distributed_dd.ranges import LARGEST_INT, Range
from distributed_dd.search.sweep import Sweep
from tests.references.families import families

GROUPS = [Experiment, Sweep, Sampling, Diagnose]
KIND = "kind"


@dataclasses.dataclass(frozen=True)
class Setting:
    """One field of one group."""

    cls: type
    field: dataclasses.Field
    hint: Any

    @property
    def name(self) -> str:
        return self.field.name

    @property
    def family(self) -> Any:
        return self.field.metadata.get("family")

    @property
    def many(self) -> bool:
        return bool(self.field.metadata.get("many"))

    @property
    def required(self) -> bool:
        return self.field.default is MISSING and self.field.default_factory is MISSING

    @property
    def range(self) -> Range:
        return self.field.metadata.get("range") or Range()

    @property
    def numbers(self) -> set[type]:
        """int and float, where a value or an entry may be one."""
        return {hint for hint in leaves(self.hint) if hint in (int, float)}

    @property
    def is_list(self) -> bool:
        return typing.get_origin(self.hint) is tuple


def leaves(hint: Any) -> Iterator[Any]:
    """The types that a hint is made of."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType, tuple):
        for argument in typing.get_args(hint):
            yield from leaves(argument)
    else:
        yield hint


def settings_of(cls: type) -> list[Setting]:
    """The fields of a group."""
    hints = typing.get_type_hints(cls)
    return [Setting(cls, field, hints[field.name]) for field in dataclasses.fields(cls) if field.init]


def groups() -> list[type]:
    """Every dataclass that a configuration can hold, each once: members of families, and groups in groups."""
    elsewheres = [one.settings for method in METHODS.members.values() for one in method.tried_elsewhere]
    known: dict[type, None] = {}

    def enter(cls: type) -> None:
        if cls in known:
            return
        known[cls] = None
        for setting in settings_of(cls):
            if dataclasses.is_dataclass(setting.hint):
                enter(setting.hint)

    for cls in [*GROUPS, *elsewheres, *(cls for family in families() for cls in family.members.values())]:
        enter(cls)
    return list(known)


def number_settings() -> list[Setting]:
    """Every field of every group that holds a number or a list of numbers."""
    return [setting for cls in groups() for setting in settings_of(cls) if setting.numbers]


def least(setting: Setting) -> dict[str, Any] | list | int | float | str | bool:
    """A value of the right type, in its range."""
    if setting.family is not None:
        kinds: dict[str, type] = setting.family.members
        kind = min(kinds, key=lambda kind: len(required_of(kinds[kind])))
        member = {KIND: kind, **required_of(kinds[kind])}
        return [member] if setting.many else member
    hint = next(leaves(setting.hint))
    if dataclasses.is_dataclass(hint):
        return required_of(hint)
    if typing.get_origin(hint) is typing.Literal:
        value: Any = typing.get_args(hint)[0]
    elif hint in (int, float):
        value = next(n for n in (1, 2, 100, 0.5) if setting.range.holds(n) and isinstance(n, hint | int))
    else:
        value = {str: "text", bool: True, dict: {"seed": {KIND: "uniform", "low": 0, "high": 1}}}.get(hint, "text")
    return [value] if setting.is_list else value


def required_of(cls: type) -> dict[str, Any]:
    """Values of the fields without a default."""
    return {setting.name: least(setting) for setting in settings_of(cls) if setting.required}


def outside(allowed: Range, kinds: set[type]) -> list[float]:
    """Numbers that a field must refuse: not finite, and next to its bounds."""
    wrong: list[float] = [math.nan, math.inf, -math.inf]
    whole = kinds == {int}
    if whole:
        wrong = [LARGEST_INT + 1, -LARGEST_INT - 1]
        steps = {"at_least": -1, "above": 0, "at_most": 1, "below": 0}
    else:
        wrong += [LARGEST_INT * 2] if float not in kinds else []
        steps = {"at_least": -math.inf, "above": 0, "at_most": math.inf, "below": 0}
    for name, step in steps.items():
        bound = getattr(allowed, name)
        if bound is not None:
            wrong.append(bound + step if whole else (math.nextafter(bound, step) if step else bound))
    return wrong


def bounds(setting: Setting) -> list[float]:
    """The ends of a field's range, and two sizes that somebody may type by mistake where they are in it."""
    allowed, whole = setting.range, setting.numbers == {int}
    farthest = LARGEST_INT if whole else 1e300
    low = allowed.at_least if allowed.at_least is not None else allowed.above
    high = allowed.at_most if allowed.at_most is not None else allowed.below
    if low is not None and not allowed.holds(low):
        low = low + 1 if whole else math.nextafter(low, math.inf)
    if high is not None and not allowed.holds(high):
        high = high - 1 if whole else math.nextafter(high, -math.inf)
    ends = [-farthest if low is None else low, farthest if high is None else high, 10**9, 10**15]
    return [int(n) if whole else float(n) for n in ends if allowed.holds(n)]


def at_bounds(cls: type, base: dict[str, Any], fixed: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """``base``, values of a group, with one number after the other at its bounds, in members of all kinds.

    ``fixed``: fields of which no other kind is tried. Yields the number's path and the values.
    """
    for setting in settings_of(cls):
        for path, value in _at_bounds(setting, base.get(setting.name), setting.name in fixed):
            yield f"{setting.name}{path}", {**base, setting.name: value}


def _at_bounds(setting: Setting, there: Any, fixed: bool) -> Iterator[tuple[str, Any]]:
    if setting.family is not None:
        for kind, cls in setting.family.members.items():
            same = isinstance(there, dict) and there.get(KIND) == kind
            if fixed and not same:
                continue
            for path, values in at_bounds(cls, there if same else {KIND: kind, **required_of(cls)}):
                yield f"[{kind}].{path}", [values] if setting.many else values
    elif dataclasses.is_dataclass(setting.hint):
        for path, values in at_bounds(typing.cast(type, setting.hint), there or {}):
            yield f".{path}", values
    elif setting.numbers:
        for number in bounds(setting):
            yield f"={number}", [number] if setting.is_list else number
