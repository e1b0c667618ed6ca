"""The part of what can be typed that a word names: a setting by its path, a family, a kind."""

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distributed_dd.errors import ConfigError
from distributed_dd.family import Family, did_you_mean
from distributed_dd.listing.settings import Row, group_of, is_group, row_of, rows_of

MOST_NAMED = 12


@dataclass(frozen=True)
class Part:
    """Rows below a title; ``about``: a line on what they are."""

    title: str
    about: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class _Place:
    """Where a path leads: a family, a group, or a setting of a group.

    ``whose``: the kinds on the way that have it, where not all have.
    """

    path: str
    thing: Any
    whose: tuple[str, ...] = ()
    default: Any = None


@dataclass(frozen=True)
class Catalogue:
    """Everything that a word may name: groups by the word that begins a path, and families."""

    groups: Mapping[str, type]
    families: Sequence[Family]

    def parts(self, word: str) -> list[Part]:
        """What ``word`` names.

        Raises:
            ConfigError: it names nothing; what there is, nearest first.
        """
        first, *rest = word.split(".")
        places = self._begun(first)
        known: Iterable[str] = self._first_words()
        for name in rest:
            if not places:
                break
            known = [inner for place in places for inner in _names(place.thing)]
            places = _joined(step for place in places for step in _inner(place, name))
            first = name
        if not places:
            raise _unknown(word, first, known)
        return [part for place in places for part in _shown(place)]

    def _begun(self, word: str) -> list[_Place]:
        """Where a path that begins with ``word`` leads: a setting of a configuration comes first, a kind last."""
        for name, group in self.groups.items():
            if name == word:
                return [_Place(word, group)]
            if steps := list(_inner(_Place("", group), word)):
                return steps
        if families := [_Place(word, family) for family in self.families if family.name == word]:
            return families
        return [
            _Place(word, family.members[word], (f"a kind of {family.name}",))
            for family in self.families
            if word in family.members
        ]

    def _first_words(self) -> list[str]:
        fields = [name for group in self.groups.values() for name in _names(group)]
        kinds = [kind for family in self.families for kind in family.members]
        return [*self.groups, *fields, *(family.name for family in self.families), *kinds]


def _inner(place: _Place, name: str) -> Iterator[_Place]:
    """Where ``name`` leads from a place: a kind of a family, or a setting of any of its kinds."""
    thing, path = place.thing, f"{place.path}.{name}".lstrip(".")
    if isinstance(thing, Family):
        if name in thing.members:
            yield _Place(path, thing.members[name], place.whose)
            return
        for kind, member in thing.members.items():
            for step in _inner(_Place(place.path, member), name):
                yield dataclasses.replace(step, whose=(kind,))
        return
    if not dataclasses.is_dataclass(thing) or isinstance(thing, Row):
        return
    for field in dataclasses.fields(thing):
        if field.name != name:
            continue
        hint = typing.get_type_hints(thing)[name]
        if (family := field.metadata.get("family")) is not None:
            yield _Place(path, family, place.whose)
        elif is_group(field, hint):
            yield _Place(path, hint, place.whose, group_of(field, hint, place.default))
        else:
            yield _Place(path, row_of(field, hint, place.default), place.whose)


def _joined(places: Iterable[_Place]) -> list[_Place]:
    """Places that are the same thing once, with all whose it is."""
    known: dict[Any, _Place] = {}
    for place in places:
        key = place.thing if isinstance(place.thing, Row) else id(place.thing)
        before = known.get(key)
        known[key] = place if before is None else dataclasses.replace(before, whose=(*before.whose, *place.whose))
    return list(known.values())


def _shown(place: _Place) -> Iterator[Part]:
    whose = f" ({', '.join(place.whose)})" if place.whose else ""
    if isinstance(place.thing, Row):
        yield Part(f"{place.path}{whose}", "", [place.thing])
    elif isinstance(place.thing, Family):
        yield Part(f"{place.path}{whose}: one of the kinds of {place.thing.name}", "", [])
        for kind, member in place.thing.members.items():
            yield Part(f"{place.path}.kind={kind}", _about(member), list(rows_of(member)))
    else:
        yield Part(f"{place.path}{whose}", _about(place.thing), list(rows_of(place.thing, place.default)))


def _about(cls: type) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0]


def _names(thing: Any) -> list[str]:
    """What may follow in a path."""
    if isinstance(thing, Family):
        inner = [name for member in thing.members.values() for name in _names(member)]
        return [*thing.members, *dict.fromkeys(inner)]
    if isinstance(thing, Row) or not dataclasses.is_dataclass(thing):
        return []
    return [field.name for field in dataclasses.fields(thing)]


def _unknown(word: str, part: str, known: Iterable[str]) -> ConfigError:
    part = part[:200]
    names = list(dict.fromkeys(known))
    near = sorted(names, key=lambda name: -difflib.SequenceMatcher(None, part, name).ratio())
    more = f" and {len(near) - MOST_NAMED} more" if len(near) > MOST_NAMED else ""
    allowed = ", ".join(near[:MOST_NAMED]) + more if near else "nothing below it"
    problem = f"there is no {part!r}{did_you_mean(part, names)}"
    return ConfigError(f"kinds {word[:200]}", problem, allowed=allowed, fix="distributed-dd kinds lists everything")
