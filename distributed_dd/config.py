"""YAML and dot-list overrides to plain mappings. The only importer of omegaconf."""

import difflib
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distributed_dd import nested, presets
from distributed_dd.durable import read_bytes
from distributed_dd.errors import ConfigError, IntegrityError, MissingInputError
from distributed_dd.plain_values import DEEPEST, check_plain, shown
from distributed_dd.secrecy import values_without_secrets
from distributed_dd.yaml_limits import MOST_BYTES, check_interpolations, check_size

KEY = re.compile(r"\w[\w-]*(\.\w[\w-]*)*")
LONGEST_PROBLEM = 200
# What the readers raise at texts that nobody meant: besides their own, whatever a value trips them with.
NOT_READ = (
    OmegaConfBaseException,
    yaml.YAMLError,
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)


def read(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The file's keys with ``key.path=value`` overrides laid over them, interpolations resolved.

    Raises:
        MissingInputError: there is no such file. ConfigError: it is no file of YAML with a group of keys, is too
            large, or an override is not key.path=value.
    """
    text, where = _text_of(path), str(path)
    with _explained(where):
        check_size(text, where)
        values: Any = OmegaConf.load(io.StringIO(text))
        if not OmegaConf.is_dict(values):
            raise ConfigError(where, "is not a group of keys")
        unresolved: Any = OmegaConf.to_container(values, resolve=False)
    return _resolved(unresolved, overrides, where)


def laid_over(values: Any, overrides: Sequence[str]) -> dict[str, Any]:
    """``values`` (a mapping) with ``key.path=value`` overrides laid over them, interpolations resolved.

    Raises:
        ConfigError: an override is not of the form key.path=value.
    """
    return _resolved(values, overrides, "the configuration")


def to_yaml(values: dict[str, Any]) -> str:
    """Plain values as YAML text, without the secrets in them."""
    return OmegaConf.to_yaml(OmegaConf.create(values_without_secrets(values)))


def _text_of(path: Path) -> str:
    """The text in a file, without waiting for what is no file."""
    try:
        return read_bytes(path, MOST_BYTES).decode()
    except MissingInputError as error:
        raise MissingInputError(error.where, error.problem, fix=_near(path)) from None
    except IntegrityError as error:
        raise ConfigError(error.where, error.problem, allowed=f"a YAML file of at most {MOST_BYTES:,} bytes") from None
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), f"is no text in UTF-8 (byte {error.start})", allowed="a YAML file") from None


def _near(path: Path) -> str:
    """A hint at files with a name like that of ``path``, which is not there."""
    there: list[str] = []
    with suppress(OSError, ValueError):
        there = sorted(name for name in os.listdir(path.parent) if name.endswith((".yaml", ".yml")))
    names = difflib.get_close_matches(path.name[:LONGEST_PROBLEM], there, n=3, cutoff=0.4)
    near = [str(path.parent / name) for name in names] or presets.near(path)
    return f"did you mean {' or '.join(near)}?" if near else "distributed-dd configs lists those that come with it"


def _resolved(values: Mapping[str, Any], overrides: Sequence[str], where: str) -> dict[str, Any]:
    """``values`` with overrides laid over them, interpolations resolved."""
    check_plain(values, "", numbers=False)
    merged = dict(values)
    for override in _kinds_first(overrides):
        merged = nested.laid_over(merged, _addition(override))
    with _explained(where):
        check_interpolations(merged, where)
        plain: Any = OmegaConf.to_container(OmegaConf.create(merged), resolve=True, throw_on_missing=True)
    check_plain(plain, "", numbers=False)
    return plain


def _kinds_first(overrides: Sequence[str]) -> list[str]:
    """Overrides in their order, but a kind before the keys that are meant for it."""
    by_key: dict[str, list[str]] = {}
    for override in overrides:
        by_key.setdefault(override.partition("=")[0], []).append(override)
    order = nested.kinds_first(override.partition("=")[0] for override in overrides)
    return [by_key[key].pop(0) for key in order]


def _addition(override: str) -> dict[str, Any]:
    """The nested group that an override stands for."""
    key, equals, text = override.partition("=")
    known = equals and len(key) <= LONGEST_PROBLEM and KEY.fullmatch(key) and key.count(".") < DEEPEST
    if not known:
        raise ConfigError(_short(override), "is no override", allowed="key.path=value, such as num_outer_steps=500")
    with _explained(_short(override)):
        check_size(text, _short(override))
        addition: Any = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=False)
    value = addition["value"]
    check_plain(value, key, numbers=False)
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """What readers raise, as one error at ``where``."""
    try:
        yield
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(where, f"is no YAML: {_short(error.problem or str(error))}{line}") from None
    except NOT_READ as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise ConfigError(where, f"cannot be read: {_short(lines[0])}") from None


def _short(text: str) -> str:
    """The beginning of a text, as a terminal takes it."""
    text = text.encode("utf-8", "backslashreplace").decode()
    text = "".join(sign if sign.isprintable() else shown(sign).strip("'") for sign in text[:LONGEST_PROBLEM])
    return text
