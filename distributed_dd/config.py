"""YAML and dot-list overrides to plain mappings. The only importer of omegaconf."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distributed_dd import nested
from distributed_dd.errors import ConfigError, MissingInputError


def read(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The file's keys with ``key.path=value`` overrides laid over them, interpolations resolved.

    Raises:
        MissingInputError: there is no such file. ConfigError: it is not YAML, or an override is not key.path=value.
    """
    if path.is_dir():
        raise ConfigError(str(path), "is a folder", allowed="a YAML file")
    if not path.is_file():
        there = [p.name for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, there, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(str(path.parent / name) for name in near)}?" if near else ""
        raise MissingInputError(str(path), "there is no such file", fix=hint)
    try:
        merged: Any = OmegaConf.load(path)
        if not OmegaConf.is_dict(merged):
            raise ConfigError(str(path), "is not a group of keys")
        return laid_over(merged, overrides)
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(str(path), f"is no YAML: {error.problem or error}{line}") from None
    except (OmegaConfBaseException, yaml.YAMLError, TypeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read: {str(error).splitlines()[0][:200]}") from None


def laid_over(values: Any, overrides: Sequence[str]) -> dict[str, Any]:
    """``values`` (a mapping) with ``key.path=value`` overrides laid over them, interpolations resolved.

    Raises:
        ConfigError: an override is not of the form key.path=value.
    """
    merged: Any = OmegaConf.to_container(OmegaConf.create(values), resolve=False)
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals or not key:
            raise ConfigError(override, "is no override", allowed="key.path=value, such as num_outer_steps=500")
        try:
            addition: Any = OmegaConf.to_container(OmegaConf.from_dotlist([override]), resolve=False)
        except (OmegaConfBaseException, yaml.YAMLError, TypeError) as error:
            raise ConfigError(override, f"cannot be read: {str(error).splitlines()[0]}") from None
        merged = nested.laid_over(merged, addition)
    plain: Any = OmegaConf.to_container(OmegaConf.create(merged), resolve=True)
    return plain


def to_yaml(values: dict[str, Any]) -> str:
    """Plain values as YAML text."""
    return OmegaConf.to_yaml(OmegaConf.create(values))
