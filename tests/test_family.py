"""Configuration into frozen objects: round trips, and one clear error for each mistake."""

import pickle
from dataclasses import dataclass
from typing import Literal

import pytest

from distributed_dd.errors import ConfigError, UserError
from distributed_dd.family import (
    Family,
    build,
    build_member,
    choice,
    describe_type,
    lifted_fields,
    paths_where,
    plain,
    setting,
)
from distributed_dd.learning.update_rules import Adam
from distributed_dd.methods import METHODS


@dataclass(frozen=True)
class Round:
    """A circle."""

    radius: float = setting("of the circle", 1.0, above=0)


@dataclass(frozen=True)
class Square:
    """A square with a hole."""

    side: int = setting("length", 2)
    inner: Round = setting("a hole", default_factory=Round)


SHAPES = Family("shape", {"round": Round, "square": Square})


@dataclass(frozen=True)
class Drawing:
    count: int = setting("how many")
    shape: object = choice(SHAPES, "what", Square(side=5))
    names: tuple[str, ...] = setting("of each", ())
    tilt: float | None = setting("degrees", None)
    mode: Literal["fast", "exact"] = setting("way", "fast")


def test_building_what_plain_returns_gives_the_object_back():
    for drawing in (
        Drawing(1),
        Drawing(2, Round(3.0), ("a", "b"), 1.5, "exact"),
        Drawing(3, Square(1, Round(9.0))),
    ):
        assert build(Drawing, plain(drawing)) == drawing


def test_a_partial_group_keeps_the_rest_of_its_default_and_another_kind_starts_afresh():
    assert build(Drawing, {"count": 1, "shape": {"inner": {"radius": 4}}}).shape == Square(5, Round(4.0))
    assert build(Drawing, {"count": 1, "shape": {"kind": "round"}}).shape == Round(1.0)
    assert build(Drawing, {"count": 1, "shape": "round"}).shape == Round(1.0)


@pytest.mark.parametrize(
    ("values", "where", "message"),
    [
        ({"count": 1, "coutn": 2}, "coutn", "did you mean 'count'?"),
        ({}, "count", "missing: how many"),
        ({"count": "three"}, "count", "a whole number"),
        ({"count": True}, "count", "a whole number"),
        ({"count": 1.0}, "count", "a whole number"),
        ({"count": 1, "tilt": "steep"}, "tilt", "a number or null"),
        ({"count": 1, "names": "a"}, "names", "a list, each entry text"),
        ({"count": 1, "names": ["a", 3]}, "names[1]", "text"),
        ({"count": 1, "mode": "fats"}, "mode", "did you mean 'fast'?"),
        ({"count": 1, "shape": {"kind": "rond"}}, "shape.kind", "did you mean 'round'?"),
        ({"count": 1, "shape": {"kind": ["round"]}}, "shape.kind", "unknown kind ['round']"),
        ({"count": 1, "shape": 3}, "shape", "a group with 'kind'"),
        ({"count": 1, "shape": {"inner": {"radius": -1}}}, "shape.inner.radius", "above 0"),
        ({"count": 1, "shape": {"inner": 7}}, "shape.inner", "a group of keys"),
    ],
)
def test_a_mistake_is_named_with_its_path(values, where, message):
    with pytest.raises(ConfigError) as caught:
        build(Drawing, values)
    assert caught.value.where == where and message in str(caught.value)


def test_errors_survive_the_way_between_processes():
    """Default pickling loses keyword arguments, and a worker's error would arrive as a TypeError."""
    error = ConfigError("a.b", "is wrong", allowed="right", fix="mend it")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is ConfigError and str(again) == str(error) and isinstance(again, UserError)


def test_a_class_that_cannot_be_a_kind_is_refused_when_the_table_is_made():
    class Bare:
        """Not a dataclass."""

    @dataclass
    class Melted:
        """Not frozen."""

    @dataclass(frozen=True)
    class Mute:
        size: int = 1

    for cls in (Bare, Melted, Mute):
        with pytest.raises(TypeError, match=r"@dataclass\(frozen=True\)"):
            Family("shape", {"bad": cls})


def test_a_lifted_group_is_named_where_people_write_it():
    @dataclass(frozen=True)
    class Tool:
        """With a hole that stands at the top level of a configuration."""

        hole: Round = setting("a hole", default_factory=Round, lifted=True)
        handle: Round = setting("a handle", default_factory=Round)

    @dataclass(frozen=True)
    class Box:
        tool: Tool = setting("what is in it", default_factory=Tool)

    assert lifted_fields(Tool) == ["hole"] and lifted_fields(Round) == []
    paths = set(paths_where(Box(), "identity", True))
    assert paths == {"tool", "hole", "hole.radius", "tool.handle", "tool.handle.radius"}


def test_types_are_said_as_a_person_says_them():
    assert describe_type(Literal["a", "b"]) == "a or b" and describe_type(float | None) == "a number or null"
    assert describe_type(tuple[str, ...]) == "a list, each entry text"
    assert describe_type(Square) == "a group: side, inner"


def test_a_part_of_a_group_keeps_the_rest_of_the_fields_default():
    """Not that of the group's class: a decay given alone must not change the learning rate."""
    method = build_member(METHODS, {"kind": "generative", "generator_optimizer": {"beta1": 0.5}})
    assert method.generator_optimizer == Adam(5e-6, 0.5, 0.9)


def test_a_kind_is_hinted_at_by_the_name_of_its_point_too():
    """Catches a hint that knows kinds alone: people type what papers call a method."""
    with pytest.raises(ConfigError, match="did you mean 'distribution_matching'"):
        build_member(METHODS, {"kind": "dmm"}, "method")
