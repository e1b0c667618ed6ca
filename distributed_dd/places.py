"""Where things lie: places that people type, and names that become names of files. Standard library only."""

import hashlib
import os
import re
import unicodedata
from pathlib import Path

from distributed_dd.errors import ConfigError

LONGEST_NAME = 100
"""Bytes of a name; file systems take 255, and what is written beside it adds to it."""
DIGITS = 8
# A slash of either kind, a sign that Windows refuses, and whatever a terminal would not show as it is.
LONGEST_PART = 255
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")
_UNFIT = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')


def name_in_path(text: str) -> str:
    """``text`` as the name of one file or folder: never empty, hidden, a path, or longer than a file system takes.

    A plain name stays as it is. Another one loses what does not fit and gets a digest, so that two names that
    differ stay two names: ``cat/dog`` and ``cat_dog`` lie side by side.
    """
    fit = _UNFIT.sub("_", unicodedata.normalize("NFC", text)).strip().rstrip(".")
    fit = fit if not fit.startswith((".", "-", "~")) else f"_{fit[1:]}"
    if fit == text and 0 < len(fit.encode()) <= LONGEST_NAME:
        return text
    mark = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]
    short = fit.encode()[: LONGEST_NAME - DIGITS - 1].decode("utf-8", "ignore")
    return f"{short or '_'}-{mark}"


def local_folder(text: str, where: str) -> str:
    """A folder or file of this machine as a person typed it, ``~`` expanded; ``where``: the field, for messages.

    Raises:
        ConfigError: it is empty, names a variable as a shell would, or is a URI.
    """
    if "://" in text:
        fix = "results=URI keeps a copy there" if where == "output" else "copy it here first"
        raise ConfigError(where, f"is a URI: {text}", allowed="a folder of this machine", fix=fix)
    return _expanded(text, where)


def folder_or_uri(text: str, where: str) -> str:
    """A folder, ``~`` expanded, or a URI such as ``s3://bucket/folder``.

    Raises:
        ConfigError: it is empty, or names a variable as a shell would.
    """
    return text if "://" in text else _expanded(text, where)


def _expanded(text: str, where: str) -> str:
    if not text.strip():
        raise ConfigError(where, "is empty", allowed="a folder, such as runs; . for this one")
    if match := _VARIABLE.search(text):
        name = match.group(1) or match.group(2)
        problem = f"names a variable, {match.group(0)}, which only a shell fills in"
        raise ConfigError(where, problem, fix=f"${{oc.env:{name}}} takes it from the environment")
    if any(len(part.encode()) > LONGEST_PART for part in Path(text).parts):
        raise ConfigError(where, "has a name that no file system takes", allowed=f"at most {LONGEST_PART} bytes each")
    if not text.startswith("~"):
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        raise ConfigError(where, f"there is no such user: {Path(text).parts[0]}") from None


def cache_folder() -> Path:
    """Where this machine keeps what can be made or fetched again.

    Raises:
        ConfigError: the user has no home.
    """
    try:
        return Path(os.environ.get("DISTRIBUTED_DD_CACHE") or Path.home() / ".cache" / "distributed_dd")
    except RuntimeError:
        raise ConfigError("DISTRIBUTED_DD_CACHE", "is not set, and the user has no home", fix="set it") from None


def displayable(text: str) -> str:
    """``text`` as it can be printed and stored anywhere: bytes of a name that are not UTF-8 become ``\\udcNN``."""
    return text.encode("utf-8", "backslashreplace").decode()


def shown_from_here(path: Path) -> str:
    """A path as short as it can be typed here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
