"""What people pass to functions, as what they would type on the command line."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distributed_dd.composition import Source, cluster_from, experiment_from
from distributed_dd.errors import ConfigError
from distributed_dd.experiment_run import Run
from distributed_dd.plain_values import check_plain, shown
from distributed_dd.presets import located

Config = str | os.PathLike[str] | Mapping[str, Any]
"""A file, the name of a configuration that comes with the package, or plain values."""


def run_of(config: Config, overrides: Mapping[str, Any] | None, more: Mapping[str, Any], on: Config | None) -> Run:
    """The run that the arguments name; its folder is not held yet."""
    experiment = experiment_from(source_of(config), typed(overrides, more))
    return Run(experiment=experiment, cluster=cluster_from(None if on is None else source_of(on)))


def source_of(config: Config) -> Source:
    """The file that is meant, or plain values.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(config, Mapping):
        return _plain(config)
    return file_of(config, "a path, a name such as digits/datm_ipc10, or a dict of plain values")


def file_of(place: Any, allowed: str = "a path") -> Path:
    """A path or the name of a configuration as the file that is meant, ``~`` expanded.

    Raises:
        ConfigError: it is neither.
    """
    if not isinstance(place, str | os.PathLike):
        raise ConfigError("the first argument", f"got {shown(place)}", allowed=allowed)
    return located(Path(os.path.expanduser(os.fspath(place))))


def typed(overrides: Mapping[str, Any] | None, more: Mapping[str, Any]) -> list[str]:
    """Overrides as they are typed on the command line: ``key.path=value``, a value as JSON, which YAML reads.

    Args:
        overrides: ``key.path`` -> value, or nested groups. more: the same, given as keywords, which win.

    Raises:
        ConfigError: a key is no key.path, or a value is none that a file could hold.
    """
    if overrides is not None and not isinstance(overrides, Mapping):
        example = 'a dict such as {"evaluate.num_networks": 2}'
        raise ConfigError("overrides", f"got {shown(overrides)}", allowed=example)
    return [_typed(key, value) for group in (overrides or {}, more) for key, value in group.items()]


def _typed(key: Any, value: Any) -> str:
    if not isinstance(key, str) or "=" in key:
        problem = f"the key {shown(key)} is no key.path"
        raise ConfigError("overrides", problem, allowed="such as num_outer_steps or evaluate.num_networks")
    value = _plain(value)
    check_plain(value, key)
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def _plain(value: Any) -> Any:
    """Paths as text, numbers of numpy and torch as numbers, at any depth; others as they are."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value.item()
    return value
