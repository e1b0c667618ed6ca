"""Records: JSON files that say what they are, whose they are, and whether they are whole.

A record holds plain values and, under ``record``, its kind, the digest of what it belongs to, and a SHA-256 over
all of these. A file that was changed, cut or put in another's place is told by one reader.
"""

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from distributed_dd.durable import RESTORE, as_json, digest, read_json, write_bytes
from distributed_dd.errors import ConfigError, IntegrityError
from distributed_dd.family import check_type
from distributed_dd.secrecy import values_without_secrets

SEAL = "record"
SHOWN, LONGEST_PROBLEM = 16, 300
NOTHING: Mapping[str, Any] = MappingProxyType({})
OwnerOf = Callable[[Mapping[str, Any]], Any]


class UncheckedRecord(UserWarning):
    """A record of an older version, which has no digest."""


def sealed(kind: str, owner: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` as a record.

    Args:
        kind: what the record is, such as ``checkpoint``.
        owner: digest of what it belongs to, such as that of a run's configuration.
    """
    plain = json.loads(json.dumps({key: value for key, value in values.items() if key != SEAL}))
    plain = values_without_secrets(plain)
    return {**plain, SEAL: {"kind": kind, "owner": owner, "sha256": _sha256(kind, owner, plain)}}


def opened(
    value: Any,
    where: str,
    kind: str,
    *,
    owner: str | None = None,
    fix: str = RESTORE,
    needs: Mapping[str, Any] = NOTHING,
    older: OwnerOf | None = None,
) -> dict[str, Any]:
    """The record that ``value`` is.

    Args:
        where: its place, for messages. owner: whose it must be; None: anybody's.
        needs: keys that it must have, with their types as `family.check_type` takes them.
        older: where versions wrote such values before they were records: whose they say they are, None if they do
            not. They are taken with a warning, as nothing shows whether somebody changed them.

    Raises:
        IntegrityError: ``value`` is no record, another kind of record, changed, or somebody else's.
    """

    def refuse(problem: str, allowed: str = "") -> NoReturn:
        raise IntegrityError(where, problem, allowed=allowed, fix=fix)

    if not isinstance(value, dict):
        refuse(f"holds a {type(value).__name__}", "a group of keys")
    if SEAL not in value and older is not None:
        require_keys(value, needs, where, fix)
        value = _as_record(value, where, kind, older(value) or owner)
    seal = value.get(SEAL)
    if not isinstance(seal, dict) or set(seal) != {"kind", "owner", "sha256"}:
        refuse("carries no digest of itself: it is damaged, or an older version wrote it")
    if seal["kind"] != kind:
        refuse(f"is a record of kind {seal['kind']!r}", kind)
    plain = {key: inner for key, inner in value.items() if key != SEAL}
    if _sha256(kind, seal["owner"], plain) != seal["sha256"]:
        refuse("is not what was written (its digest differs)")
    if owner is not None and seal["owner"] != owner:
        refuse(f"belongs to another configuration ({str(seal['owner'])[:SHOWN]})", f"one of {owner[:SHOWN]}")
    require_keys(value, needs, where, fix)
    return value


def require_keys(values: Mapping[str, Any], needs: Mapping[str, Any], where: str, fix: str = RESTORE) -> None:
    """Refuse values that lack a key, or hold something of another type under it.

    Raises:
        IntegrityError: the first that does not fit.
    """
    for key, hint in needs.items():
        if key not in values:
            raise IntegrityError(where, f"lacks {key}", fix=fix)
        try:
            check_type(values[key], hint, key)
        except ConfigError as error:
            problem = f"{error.where}: {error.problem[:LONGEST_PROBLEM]}"
            raise IntegrityError(where, problem, allowed=error.allowed, fix=fix) from None


def write_record(path: Path, kind: str, owner: str, values: Mapping[str, Any], private: bool = False) -> str:
    """Write a record, for its owner alone if ``private``; returns the file's SHA-256."""
    return write_bytes(path, as_json(sealed(kind, owner, values)), private)


def _as_record(values: dict[str, Any], where: str, kind: str, owner: str | None) -> dict[str, Any]:
    warnings.warn(
        f"{where} carries no digest of itself, as older versions wrote it: what it says cannot be checked",
        UncheckedRecord,
        stacklevel=2,
    )
    return sealed(kind, owner or "", values)


def read_record(
    path: Path,
    kind: str,
    *,
    owner: str | None = None,
    fix: str = RESTORE,
    needs: Mapping[str, Any] = NOTHING,
    older: OwnerOf | None = None,
) -> dict[str, Any]:
    """The record in ``path``; arguments and errors as `opened`.

    Raises:
        MissingInputError: there is no such file.
    """
    try:
        value = read_json(path)
    except IntegrityError as error:
        raise IntegrityError(error.where, error.problem, allowed=error.allowed, fix=fix) from None
    return opened(value, str(path), kind, owner=owner, fix=fix, needs=needs, older=older)


def seal_of(record: Mapping[str, Any]) -> str:
    """The digest of a record: what other records name it by."""
    return record[SEAL]["sha256"]


def owner_of(record: Mapping[str, Any]) -> str:
    """The digest of what a record belongs to."""
    return record[SEAL]["owner"]


def _sha256(kind: str, owner: Any, plain: Mapping[str, Any]) -> str:
    return digest([kind, owner, plain])
