"""Plain values, as files hold them: keys that are text, text of one line, finite numbers. Standard library only."""

import math
import unicodedata
from collections.abc import Mapping
from typing import Any

from distributed_dd.errors import ConfigError

LONGEST_TEXT, LONGEST_KEY, LONGEST_SHOWN = 4096, 200, 200
DEEPEST = 40
"""Groups and lists within each other."""


def shown(value: Any) -> str:
    """A value in a message: as Python writes it, cut where it is long."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply; a number of too many digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}.."


def check_text(text: str, path: str) -> None:
    """Refuse text that no file, terminal or database would hold as it is.

    Raises:
        ConfigError: it is too long, or holds control characters or halves of characters.
    """
    if len(text) > LONGEST_TEXT:
        raise ConfigError(path, f"is {len(text):,} characters long", allowed=f"at most {LONGEST_TEXT:,}")
    if any(unicodedata.category(sign) in ("Cc", "Cs") for sign in text):
        raise ConfigError(path, f"holds control characters: {shown(text)}", allowed="one line of text")


def check_group(value: Any, path: str, expected: str) -> dict[str, Any]:
    """``value`` as a group; groups and lists in it are not looked at.

    Raises:
        ConfigError: it is none, or a key of it is no text.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(path or "configuration", f"expected {expected}, got {shown(value)}")
    for key in value:
        if not isinstance(key, str):
            problem = f"the key {shown(key)} is a {type(key).__name__}"
            raise ConfigError(path or "configuration", problem, allowed="text", fix=f'"{shown(key)}" in quotes')
        if not key or len(key) > LONGEST_KEY:
            raise ConfigError(path or "configuration", f"the key {shown(key)} is no name")
        check_text(key, f"{path or 'configuration'}, a key")
    return dict(value)


def check_plain(value: Any, path: str, numbers: bool = True, depth: int = 0) -> None:
    """Refuse what is no plain value, at any depth.

    Args:
        numbers: whether texts and numbers are looked at too; otherwise only groups and lists.

    Raises:
        ConfigError: keys that are no text, text of several lines, numbers that are not finite, values of another
            type than text, numbers, true, false, null, lists and groups, or nesting without end.
    """
    if depth > DEEPEST:
        raise ConfigError(path[:LONGEST_SHOWN], f"is nested more than {DEEPEST} levels deep")
    if isinstance(value, Mapping):
        for key, inner in check_group(value, path, "a group of keys").items():
            check_plain(inner, f"{path}.{key}" if path else key, numbers, depth + 1)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            check_plain(inner, f"{path}[{index}]", numbers, depth + 1)
    elif not isinstance(value, str | int | float | None):
        raise ConfigError(path, f"got {shown(value)}", allowed="text, a number, true, false, null, a list or a group")
    elif numbers and isinstance(value, str):
        check_text(value, path)
    elif numbers and isinstance(value, int | float) and not (abs(value) <= 2**53 or _is_large_but_finite(value)):
        raise ConfigError(path, f"got {shown(value)}", allowed="a finite number; whole ones up to 2**53")


def _is_large_but_finite(number: float) -> bool:
    return isinstance(number, float) and math.isfinite(number)
