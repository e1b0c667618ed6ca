"""Every number that can be configured has a range, and nothing outside of it gets in."""

import math

import pytest

from distributed_dd.errors import ConfigError
from distributed_dd.family import build
from tests.references.schema import groups, number_settings, outside, required_of, settings_of

NUMBERS = [pytest.param(setting, id=f"{setting.cls.__name__}-{setting.name}") for setting in number_settings()]

TEXTS_TOO = ("keep_epochs", "layers")
"""Fields that take texts beside numbers."""


def refused(setting, value):
    """The error at a value, or None where it got in."""
    values = {**required_of(setting.cls), setting.name: [value] if setting.is_list else value}
    try:
        build(setting.cls, values, "group")
    except ConfigError as error:
        return error
    return None


def test_there_are_many_numbers_in_every_kind_of_group():
    """Catches a walk that no longer gets anywhere."""
    assert len(NUMBERS) > 120 and len({setting.cls for setting in number_settings()}) > 35
    assert all(setting.field.metadata.get("meaning") for cls in groups() for setting in settings_of(cls))


@pytest.mark.parametrize("setting", NUMBERS)
def test_a_number_outside_of_its_range_is_refused_with_its_path(setting):
    where = f"group.{setting.name}" + ("[0]" if setting.is_list else "")
    others = [] if setting.name in TEXTS_TOO else [True, "1", [], {}]
    for value in [*outside(setting.range, setting.numbers), 10**400, -(10**400), *others]:
        error = refused(setting, value)
        assert error is not None, f"{value!r} got in"
        assert error.where in (where, f"group.{setting.name}"), error
        assert error.problem and len(str(error)) < 2000


@pytest.mark.parametrize("setting", NUMBERS)
def test_a_default_is_inside_of_its_range(setting):
    default = () if setting.required else setting.field.default
    entries = default if isinstance(default, tuple) else (default,)
    numbers = [entry for entry in entries if isinstance(entry, int | float)]
    assert all(setting.range.holds(number) and math.isfinite(number) for number in numbers)
