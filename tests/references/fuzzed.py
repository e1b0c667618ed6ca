"""Configurations drawn from the schema: right ones, and right ones that were damaged."""

import dataclasses
import math
import typing
from typing import Any

from hypothesis import strategies as st

from distributed_dd.search.dimensions import FARTHEST
from tests.references.schema import KIND, Setting, leaves, settings_of

WORDS = ["digits", "runs", "~/runs", "resnet18", "middle", "s3://bucket/runs", "0-3,5", "all", "window", "a b", "x.y"]
ODD_TEXTS = [
    "",
    " ",
    "\x00",
    "a\nb",
    "\ud800",
    "x" * 10_000,
    "$HOME/runs",
    "~nobody_of_this_name/x",
    "${seed}",
    "${a.b",
    "${oc.env:NOT_SET_ANYWHERE}",
    "${oc.decode:'[1'}",
    "???",
    "../" * 50,
    "a/" + "n" * 300,
    "null",
    "1e400",
    "0-999999999999:0.0001",
    "-1",
    "\u202e",
    "🦜",
]
ODD_NUMBERS = [math.nan, math.inf, -math.inf, -1, -0.0, 0, 2**53 + 1, -(2**63), 10**400, 10**15, 1e308, 5e-324, -1e300]
ODD_KEYS = ["", "kind", "unknown", "a.b", "seed", "x" * 500, "a b", "1", "\x00", "__class__", "${seed}"]
ODD_SHAPES = [
    None,
    True,
    False,
    [],
    {},
    [[]],
    [None],
    {"kind": None},
    {"kind": []},
    {"a": {"b": {"c": 1}}},
    [{}],
    3,
    "x",
]

odd_values = st.one_of(
    st.sampled_from(ODD_TEXTS),
    st.sampled_from(ODD_NUMBERS),
    st.sampled_from(ODD_SHAPES),
    st.integers(),
    st.floats(),
    st.text(max_size=30),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
    st.lists(st.one_of(st.integers(), st.text(max_size=5), st.none()), max_size=5),
)


def group(cls: type) -> st.SearchStrategy[dict[str, Any]]:
    """Values of a group: its required fields, and some of the others."""

    @st.composite
    def drawn(draw: Any) -> dict[str, Any]:
        values = {}
        for setting in settings_of(cls):
            if not setting.field.metadata.get("lifted") and (setting.required or draw(st.integers(0, 3)) == 0):
                values[setting.name] = draw(value(setting))
        return values

    return drawn()


def member(family: Any) -> st.SearchStrategy[Any]:
    """A member of a family: its kind, and some of its fields."""
    return st.sampled_from([*family.members]).flatmap(
        lambda kind: group(family.members[kind]).map(lambda values: {KIND: kind, **values})
    )


def value(setting: Setting) -> st.SearchStrategy[Any]:
    """A value of a field, of its type and in its range."""
    if setting.family is not None:
        one = member(setting.family)
        return st.lists(one, min_size=1, max_size=3) if setting.many else one
    if dataclasses.is_dataclass(setting.hint):
        return group(setting.hint)
    options = st.sampled_from([*leaves(setting.hint)]).flatmap(lambda hint: _leaf(hint, setting))
    return st.lists(options, max_size=3) if setting.is_list else options


def _leaf(hint: Any, setting: Setting) -> st.SearchStrategy[Any]:
    allowed = setting.range
    low = allowed.at_least if allowed.at_least is not None else allowed.above
    high = allowed.at_most if allowed.at_most is not None else allowed.below
    if typing.get_origin(hint) is typing.Literal:
        return st.sampled_from(typing.get_args(hint))
    if hint is int:
        low, high = -FARTHEST if low is None else int(low), FARTHEST if high is None else int(high)
        return st.one_of(st.integers(low, min(high, low + 20)), st.integers(low, high))
    if hint is float:
        low, high = -1e100 if low is None else float(low), 1e100 if high is None else float(high)
        near = st.floats(low, min(high, low + 20), allow_nan=False)
        return st.one_of(near, st.floats(low, high, allow_nan=False)).filter(allowed.holds)
    if hint is bool:
        return st.booleans()
    if hint is dict:
        return st.dictionaries(st.sampled_from(["seed", "method.batch_size", "network.width"]), odd_values, max_size=2)
    return st.sampled_from(WORDS) if hint is str else st.none()


def paths_in(values: Any, path: tuple = ()) -> list[tuple]:
    """The path of every value in nested groups and lists, the outermost aside."""
    inner = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return [one for key, entry in inner for one in [(*path, key), *paths_in(entry, (*path, key))]]


@st.composite
def damaged(draw: Any, values: Any) -> Any:
    """``values`` with up to three things in it that nobody should have written."""
    for _ in range(draw(st.integers(0, 3))):
        paths = paths_in(values)
        if not paths:
            return draw(odd_values)
        path = draw(st.sampled_from(paths))
        way = draw(st.sampled_from(["replace", "replace", "remove", "add", "wrap", "rename", "swap"]))
        other = draw(st.sampled_from(paths))
        values = _changed(values, path, way, draw(odd_values), draw(st.sampled_from(ODD_KEYS)), _at(values, other))
    return values


def _at(values: Any, path: tuple) -> Any:
    for key in path:
        values = values[key]
    return values


def _changed(values: Any, path: tuple, way: str, odd: Any, key: str, other: Any) -> Any:
    """A copy in which something was done at ``path``."""
    if len(path) > 1:
        copy = dict(values) if isinstance(values, dict) else list(values)
        copy[path[0]] = _changed(values[path[0]], path[1:], way, odd, key, other)
        return copy
    copy = dict(values) if isinstance(values, dict) else list(values)
    if way == "remove":
        del copy[path[0]]
    elif way == "rename" and isinstance(copy, dict):
        copy[key] = copy.pop(path[0])
    elif way == "add" and isinstance(copy, dict):
        copy[key] = odd
    else:
        copy[path[0]] = {"wrap": [copy[path[0]]], "swap": other}.get(way, odd)
    return copy


SIGNS = [*"[]{}:,&*!|>'\"%@`#-?\t\n", "- ", "<<: ", "&a ", "*a", "!!python/object:x ", "${", "}", "\x00", "\ufeff"]
broken_texts = st.tuples(st.sampled_from(["cut", "insert", "double"]), st.floats(0, 1), st.sampled_from(SIGNS))


def broken(text: str, damage: tuple[str, float, str]) -> str:
    """A text of YAML with one thing done to it at a share of its length."""
    way, share, sign = damage
    place = int(share * len(text))
    if way == "cut":
        return text[:place]
    return text[:place] + sign + text[place:] if way == "insert" else text[:place] + text[place // 2 :]
