"""Secrets stay out of everything that is written or shown: one rule, which every border applies.

A secret is the user and password in an address, a parameter of an address that signs or opens it, the value of an
environment variable that is named like a secret (a configuration may take it in with ``${oc.env:NAME}``), and what
stands under a key that is named like one. Standard library only.
"""

import os
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

BLOT = "***"
SHORTEST = 8
"""Characters of an environment variable's value; a shorter one would blot common words."""
_WORDS = (
    "(?:password|passwd|passphrase|secret|token|credentials?|signature|api_?key|(?:access|account|private|secret)_?key)"
)
_VARIABLE = re.compile(rf"(?:.*_)?(?:{_WORDS}|pat|connection_string|access_key_id)", re.IGNORECASE)
_KEY = re.compile(rf"(?:.*[_.-])?{_WORDS}", re.IGNORECASE)
_USER = re.compile(r"://[^/@\s]+@")
_PARAMETER = re.compile(rf"([?&;](?:[\w.-]*[_.-])?(?:{_WORDS}|sig|key|pwd|auth)=)[^&;#\s\"']+", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """``text`` with every secret in it blotted out."""
    return _blotted(text, _values_of_variables())


def values_without_secrets(value: Any) -> Any:
    """A plain value with every secret in it blotted out, at any depth."""
    return _inner_blotted(value, _values_of_variables())


def _inner_blotted(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, str):
        return _blotted(value, secrets)
    if isinstance(value, Mapping):
        return {key: BLOT if _is_secret(key, inner) else _inner_blotted(inner, secrets) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_inner_blotted(inner, secrets) for inner in value]
    return value


def _blotted(text: str, secrets: list[str]) -> str:
    for value in secrets:
        text = text.replace(value, BLOT)
    if "://" in text:
        text = _USER.sub(f"://{BLOT}@", text)
    return _PARAMETER.sub(rf"\1{BLOT}", text) if "=" in text else text


def _is_secret(key: Any, value: Any) -> bool:
    return isinstance(value, str) and value != "" and isinstance(key, str) and _KEY.fullmatch(key) is not None


@cache
def _is_named_like_a_secret(variable: str) -> bool:
    return _VARIABLE.fullmatch(variable) is not None


def _values_of_variables() -> list[str]:
    """Longest first, so that none is cut by another that it contains."""
    values = (value for name, value in os.environ.items() if _is_named_like_a_secret(name))
    return sorted({value for value in values if len(value) >= SHORTEST}, key=len, reverse=True)
