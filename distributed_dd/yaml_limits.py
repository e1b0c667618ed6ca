"""What a YAML text may grow into, found before anything is made of it.

A text of 200 bytes can name a list of lists of lists .. by aliases or interpolations, and would fill the memory.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from distributed_dd.errors import ConfigError
from distributed_dd.plain_values import DEEPEST

MOST_BYTES = 2**20
MOST_NODES = 10_000
"""Keys, values, lists and groups, every alias counted as what it stands for."""
MOST_CHARACTERS = 2**22
"""Of all texts together, every interpolation replaced."""
LONGEST_INTERPOLATED = 2_000
"""Characters of a text with interpolations: their grammar is slow."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INNERMOST = re.compile(r"\$\{([^${}]*)\}")
_REPLACED = "\x00"
_BY_NAME = ("oc.select", "oc.dict.keys", "oc.dict.values")


def check_size(text: str, where: str) -> None:
    """Refuse a text that nests too deeply or, with its aliases replaced, is too large; nothing is built for that.

    Raises:
        ConfigError: such a text. yaml.YAMLError: it is no YAML.
    """
    if len(text) > MOST_BYTES:
        raise ConfigError(where, f"holds {len(text):,} characters", allowed=f"at most {MOST_BYTES:,}")
    sizes: dict[str, int | None] = {}  # by anchor; None while it is open
    open_nodes: list[tuple[str | None, int]] = []  # anchor, and how many nodes there were before it
    total = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = total - before
            continue
        if not isinstance(event, yaml.NodeEvent):
            continue
        if isinstance(event, yaml.AliasEvent):
            size = sizes.get(event.anchor, 1)
            if size is None:
                raise ConfigError(where, f"the alias *{event.anchor} stands inside of what it names")
            total += size
        else:
            if isinstance(event, yaml.CollectionStartEvent):
                open_nodes.append((event.anchor, total))
            if event.anchor:
                sizes[event.anchor] = 1 if isinstance(event, yaml.ScalarEvent) else None
            total += 1
        if len(open_nodes) > DEEPEST:
            raise ConfigError(where, f"is nested more than {DEEPEST} levels deep")
        if total > MOST_NODES:
            raise ConfigError(where, f"holds more than {MOST_NODES:,} keys and values, aliases replaced")


def check_interpolations(values: Mapping[str, Any], where: str) -> None:
    """Refuse values whose ``${key.path}``, each replaced by what it names, make them too large.

    Raises:
        ConfigError: such values, or an interpolation in the name of another.
    """
    if (size := _Sizes(values, where).of(())) > MOST_CHARACTERS:
        raise ConfigError(where, f"its interpolations grow to {size:,} characters", allowed=f"{MOST_CHARACTERS:,}")


class _Sizes:
    """Characters of a value at a path, with all that it names; each path is looked at once."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values, self.where = values, where
        self.known: dict[tuple[str, ...], int] = {}

    def of(self, path: tuple[str, ...]) -> int:
        """Of the value there; 0 where nothing is, or where it is being looked at: it names itself."""
        if path not in self.known:
            self.known[path] = 0
            self.known[path] = sum(self._parts(self._at(path), path))
        return self.known[path]

    def _at(self, path: tuple[str, ...]) -> Any:
        value: Any = self.values
        for name in path:
            if isinstance(value, Mapping):
                value = value.get(name)
            elif isinstance(value, list) and name.isdecimal() and len(name) < 9 and int(name) < len(value):
                value = value[int(name)]
            else:
                return None
        return value

    def _parts(self, value: Any, path: tuple[str, ...]) -> Iterator[int]:
        yield 10
        if isinstance(value, Mapping | list):
            names = value if isinstance(value, Mapping) else map(str, range(len(value)))
            for name in names:
                yield self.of((*path, name))
        elif isinstance(value, str):
            yield len(value)
            for target in self._targets(value, path):
                yield self.of(target)

    def _targets(self, text: str, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        """The paths that the interpolations in a text name."""
        if "${" in text and len(text) > LONGEST_INTERPOLATED:
            problem = f"a text of {len(text):,} characters with interpolations"
            raise ConfigError(".".join(path), problem, allowed=f"at most {LONGEST_INTERPOLATED:,}")
        while match := _INNERMOST.search(text):
            text = text[: match.start()] + _REPLACED + text[match.end() :]
            name, is_resolver, arguments = match.group(1).partition(":")
            if is_resolver:
                name = arguments.partition(",")[0] if name.strip() in _BY_NAME else ""
            if _REPLACED in name:
                raise ConfigError(".".join(path), "an interpolation in the name of another", allowed="${key.path}")
            if name.strip():
                yield _path_of(name.strip(), path)


def _path_of(name: str, path: tuple[str, ...]) -> tuple[str, ...]:
    """The path that ``name`` means at ``path``: from the top, or, with leading dots, from the groups around."""
    keys = name.lstrip(".")
    num_up = len(name) - len(keys)
    base = path[: max(0, len(path) - num_up)] if num_up else ()
    return (*base, *(key for key in re.split(r"[.\[\]]", keys) if key))
