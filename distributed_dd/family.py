"""Frozen dataclasses from plain mappings: families of alternatives chosen by ``kind``.

An axis along which methods differ is a `Family`; each member is a frozen dataclass that is its own
configuration. `build` turns nested mappings into such objects and explains every mistake with the
path at which it was made. Standard library only.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any

from distributed_dd.errors import ConfigError
from distributed_dd.nested import laid_over
from distributed_dd.places import folder_or_uri, local_folder
from distributed_dd.plain_values import LONGEST_SHOWN, check_group, check_plain, check_text, shown
from distributed_dd.ranges import Range


class Family:
    """A named table of interchangeable dataclasses.

    Args:
        name: what the axis is called in messages and in `distributed-dd kinds`.
        members: kind as typed in YAML -> frozen dataclass.
    """

    def __init__(self, name: str, members: Mapping[str, type]) -> None:
        for kind, cls in members.items():
            frozen = dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
            explained = (cls.__doc__ or "").strip() and not (cls.__doc__ or "").startswith(f"{cls.__name__}(")
            if not (frozen and explained):
                raise TypeError(
                    f"{name} kind {kind!r}: {cls.__name__} must be a class with @dataclass(frozen=True), "
                    "whose fields are its settings, and with a docstring for `distributed-dd kinds`"
                )
        self.name = name
        self.members: dict[str, Any] = dict(members)

    def kind_of(self, member: Any) -> str:
        """The word that selects ``member``'s class in YAML."""
        for kind, cls in self.members.items():
            if type(member) is cls:
                return kind
        raise TypeError(f"{type(member).__name__} is no member of the family {self.name!r}")


def setting(
    meaning: str,
    default: Any = dataclasses.MISSING,
    *,
    identity: bool = True,
    place: bool = False,
    folder: bool = False,
    lifted: bool = False,
    added: bool = False,
    usual: str = "",
    at_least: float | None = 0,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    **kwargs: Any,
) -> Any:
    """A dataclass field that carries its meaning for `show` and `kinds`.

    Args:
        identity: False: the field decides nothing about the result, such as where files lie or when to save.
            Such fields are left out of `identity`.
        place: the field is a folder or a URI, which processes that start elsewhere must find.
        folder: the field is a folder or file of this machine.
        lifted: the field is a group that people write at the top level of a configuration.
        added: the field came when results were there already: `identity` leaves it out at its default, so that they
            keep their digests.
        usual: what people write most, for a field without default; said where it is missing.
        at_least, above, at_most, below: bounds of a number, and of each number in a list; None: no such bound. A
            number is finite, and 0 or more, unless this says otherwise.
    """
    limits = Range(at_least=at_least if above is None else None, above=above, at_most=at_most, below=below)
    metadata = {"meaning": meaning, "identity": identity, "place": place, "folder": folder, "lifted": lifted}
    metadata |= {"added": added, "usual": usual, "range": limits}
    if default is not dataclasses.MISSING:
        kwargs["default"] = default
    return dataclasses.field(metadata=metadata, **kwargs)


def lifted_fields(cls: type) -> list[str]:
    """Fields of ``cls`` that people write at the top level of a configuration."""
    return [field.name for field in dataclasses.fields(cls) if field.metadata.get("lifted")]


def paths_where(member: Any, mark: str, value: bool, prefix: str = "") -> typing.Iterator[str]:
    """``key.path`` of every field of ``member``, and of the groups in it, whose ``mark`` has this value.

    ``mark`` is an argument of `setting`; a lifted group counts as of the top level.
    """
    for field in dataclasses.fields(member):
        path = field.name if field.metadata.get("lifted") else f"{prefix}{field.name}"
        if field.metadata.get(mark) is value:
            yield path
        inner = getattr(member, field.name)
        if dataclasses.is_dataclass(inner):
            yield from paths_where(inner, mark, value, f"{path}.")


def choice(
    family: Family, meaning: str, default: Any = dataclasses.MISSING, *, added: bool = False, usual: str = ""
) -> Any:
    """A dataclass field holding one member of ``family``; ``added`` and ``usual`` as in `setting`."""
    kwargs: dict[str, Any] = {} if default is dataclasses.MISSING else {"default": default}
    metadata = {"meaning": meaning, "family": family, "added": added, "usual": usual}
    return dataclasses.field(metadata=metadata, **kwargs)


def choices(family: Family, meaning: str, default: tuple = ()) -> Any:
    """A dataclass field holding several members of ``family``."""
    return dataclasses.field(metadata={"meaning": meaning, "family": family, "many": True}, default=default)


def did_you_mean(word: str, words: typing.Iterable[str]) -> str:
    """A hint such as ``did you mean 'seed'?`` or nothing."""
    if len(word) > LONGEST_SHOWN:  # the comparison takes the square of its length
        return ""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""


Missing = tuple[str, str, str]
"""The path of a key that has no default, its meaning, and what is usual."""


class MissingError(ConfigError):
    """Keys without a default that nobody wrote, all of a configuration at once."""

    missing: tuple[Missing, ...] = ()

    @classmethod
    def of(cls, missing: typing.Sequence[Missing]) -> "MissingError":
        """The error that names them all; it stands at the first."""
        (first, meaning, usual), *others = missing
        more = "; ".join(f"{path}, {meaning}{_usual(usual)}" for path, meaning, usual in others)
        error = cls(first, f"missing: {meaning}{_usual(usual)}" + (f". Missing as well: {more}" if more else ""))
        error.missing = tuple(missing)
        return error


def _usual(value: str) -> str:
    return f" (usual: {value})" if value else ""


def build(cls: type, values: Mapping[str, Any], path: str = "") -> Any:
    """Construct ``cls`` from ``values``; nested dataclasses and families are built recursively.

    Raises:
        ConfigError: unknown key, wrong type, unknown or missing kind, or a failed check.
    """
    values = check_group(values, path, "a group of keys")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for key in values:
        if key not in fields:
            raise ConfigError(
                _join(path, key),
                f"unknown key{did_you_mean(key, fields)}",
                allowed=", ".join(fields),
            )
    hints = typing.get_type_hints(cls)
    arguments = {}
    missing: list[Missing] = []
    for name, field in fields.items():
        if name in values:
            try:
                arguments[name] = _value(values[name], field, hints[name], _join(path, name))
            except MissingError as error:
                missing += error.missing
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            missing.append((_join(path, name), field.metadata.get("meaning", ""), field.metadata.get("usual", "")))
    if missing:
        raise MissingError.of(missing)
    try:
        return cls(**arguments)
    except ConfigError as error:
        raise ConfigError(_join(path, error.where), error.problem, allowed=error.allowed, fix=error.fix) from None


def build_member(family: Family, values: Any, path: str = "") -> Any:
    """The member of ``family`` that ``values`` (a kind, or a group with ``kind``) describe.

    Raises:
        ConfigError: as `build`.
    """
    return _member(family, values, dataclasses.field(), path)


def identity(member: Any) -> Any:
    """`plain` without the fields that decide nothing about the result, and added ones at their default."""
    return plain(member, identity_only=True)


def plain(member: Any, identity_only: bool = False) -> Any:
    """The inverse of `build`: nested dictionaries of plain values, ``kind`` included."""
    if not dataclasses.is_dataclass(member):
        return list(member) if isinstance(member, tuple) else member
    out = {}
    for field in dataclasses.fields(member):
        if identity_only and not field.metadata.get("identity", True):
            continue
        value = getattr(member, field.name)
        if identity_only and field.metadata.get("added") and value == field.default:
            continue
        family = field.metadata.get("family")
        if family is None or value is None:
            out[field.name] = plain(value, identity_only)
        elif field.metadata.get("many"):
            out[field.name] = [_with_kind(family, member, identity_only) for member in value]
        else:
            out[field.name] = _with_kind(family, value, identity_only)
    return out


def _with_kind(family: Family, member: Any, identity_only: bool) -> dict[str, Any]:
    return {"kind": family.kind_of(member), **plain(member, identity_only)}


def _value(value: Any, field: dataclasses.Field, hint: Any, path: str) -> Any:
    family = field.metadata.get("family")
    if family is not None and field.metadata.get("many"):
        if not isinstance(value, list | tuple):
            raise ConfigError(path, f"wrong type: got {shown(value)}", allowed=f"a list of {family.name}s")
        bare = dataclasses.field()
        return tuple(_member(family, entry, bare, f"{path}[{i}]") for i, entry in enumerate(value))
    if family is not None:
        return _member(family, value, field, path)
    if dataclasses.is_dataclass(hint):
        group = check_group({} if value is None else value, path, "a group of keys")
        if dataclasses.is_dataclass(field.default):
            group = laid_over(plain(field.default), group)
        return build(typing.cast(type, hint), group, path)
    value = check_type(value, hint, path)
    if hint is dict or Any in typing.get_args(hint):
        check_plain(value, path)
    if isinstance(value, str) and field.metadata.get("folder"):
        return local_folder(value, path)
    if isinstance(value, str) and field.metadata.get("place"):
        return folder_or_uri(value, path)
    limits = field.metadata.get("range") or Range()
    limits.check(value, path, or_null=types.NoneType in typing.get_args(hint))
    return value


def _kind_hint(word: str, family: Family) -> str:
    """The kind that ``word`` may mean: a kind like it, or one whose members have a name like it."""
    kinds = {kind: kind for kind in family.members}
    for kind, cls in family.members.items():
        name = next((field.default for field in dataclasses.fields(cls) if field.name == "name"), None)
        if isinstance(name, str):
            kinds.setdefault(name, kind)
    close = difflib.get_close_matches(word[:LONGEST_SHOWN], kinds, n=1, cutoff=0.5)
    return f" (did you mean '{kinds[close[0]]}'?)" if close else ""


def _member(family: Family, value: Any, field: dataclasses.Field, path: str) -> Any:
    if value is None and field.default is None:
        return None
    if isinstance(value, str):
        value = {"kind": value}
    rest = check_group(value, path, "a group with 'kind'")
    default = field.default
    kind = rest.pop("kind", None)
    if kind is None and default not in (dataclasses.MISSING, None):
        kind = family.kind_of(default)
    if not isinstance(kind, str) or kind not in family.members:
        problem = "missing" if kind is None else f"unknown kind {shown(kind)}"
        hint = _kind_hint(kind, family) if isinstance(kind, str) else ""
        raise ConfigError(_join(path, "kind"), problem + hint, allowed=", ".join(family.members))
    cls = family.members[kind]
    if default not in (dataclasses.MISSING, None) and type(default) is cls:
        rest = laid_over(plain(default), rest)
    _refuse_keys_of_others(family, kind, rest, path)
    return build(cls, rest, path)


def _refuse_keys_of_others(family: Family, kind: str, values: Mapping[str, Any], path: str) -> None:
    """Refuse a key that this kind does not have and others do: their kind was meant, and not said."""
    own = {field.name for field in dataclasses.fields(family.members[kind])}
    for key in (key for key in values if key not in own):
        others = [other for other, cls in family.members.items() if key in {f.name for f in dataclasses.fields(cls)}]
        if others:
            problem = f"unknown key of kind {kind}; {', '.join(others[:3])} {'has' if len(others) == 1 else 'have'} it"
            allowed = ", ".join(sorted(own)) or f"no keys: {kind} has none"
            raise ConfigError(_join(path, key), problem, allowed=allowed, fix=f"{_join(path, 'kind')}={others[0]}")


def check_type(value: Any, hint: Any, path: str) -> Any:
    """``value`` as ``hint`` demands (an int may stand for a float, a list for a tuple), or an error."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        for option in arguments:
            try:
                return check_type(value, option, path)
            except ConfigError:
                continue
    elif origin is typing.Literal:
        for argument in arguments:
            if type(value) is type(argument) and value == argument:
                return value
        hint = did_you_mean(value, map(str, arguments)) if isinstance(value, str) else ""
        raise ConfigError(
            path,
            f"unknown value {shown(value)}{hint}",
            allowed=", ".join(map(str, arguments)),
        )
    elif origin is tuple:
        if isinstance(value, list | tuple):
            return tuple(check_type(v, arguments[0], f"{path}[{i}]") for i, v in enumerate(value))
    elif hint is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _as_float(value, path)
    elif hint is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif hint is types.NoneType:
        if value is None:
            return None
    elif isinstance(hint, type) and isinstance(value, hint):
        if isinstance(value, str):
            check_text(value, path)
        return value
    raise ConfigError(path, f"wrong type: got {shown(value)}", allowed=describe_type(hint))


def _as_float(value: float, path: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ConfigError(path, f"is too large: {shown(value)}", allowed="a number below 1e308") from None


def describe_type(hint: Any) -> str:
    """A type as a person says it."""
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", dict: "a group of keys"}
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe_type(a) for a in arguments)
    if origin is typing.Literal:
        return " or ".join(str(a) for a in arguments)
    if origin is tuple:
        return f"a list, each entry {describe_type(arguments[0])}"
    if hint is types.NoneType:
        return "null"
    if dataclasses.is_dataclass(hint):
        return "a group: " + ", ".join(field.name for field in dataclasses.fields(hint))
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def require(condition: bool, where: str, problem: str, allowed: str = "", fix: str = "") -> None:
    """Raise `ConfigError` at ``where`` unless ``condition`` holds."""
    if not condition:
        raise ConfigError(where, problem, allowed=allowed, fix=fix)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path and key else path or key
