"""The configurations that come with the package, found by name from any folder. Standard library only.

``digits/datm_ipc10`` is ``configs/digits/datm_ipc10.yaml`` of the checkout, or of the wheel, which carries a copy. A
file of the user's own of that path wins.
"""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_IN_WHEEL, _IN_CHECKOUT = _PACKAGE / "configs", _PACKAGE.parent / "configs"
FOLDER = "configs"
SUFFIX = ".yaml"
_FACT = re.compile(r"\b(Cost|Published|Measured)\b(?: here)?(?:,[^:.]*)?: ")


def root() -> Path:
    """Where they lie."""
    return _IN_WHEEL if _IN_WHEEL.is_dir() else _IN_CHECKOUT


def located(path: Path) -> Path:
    """The user's own file or folder of this path, else the configuration of this name, else the path."""
    try:
        if path.is_absolute() or path.exists():
            return path
    except OSError:  # a name that no file can have
        return path
    parts = path.parts[1:] if path.parts[:1] == (FOLDER,) else path.parts
    if not parts or ".." in parts:
        return path
    file = root().joinpath(*parts)
    for known in (file, file.with_name(file.name + SUFFIX)):
        if known.suffix == SUFFIX and known.is_file():
            return known
    return path


def names() -> list[str]:
    """All of them, such as ``digits/datm_ipc10``."""
    return sorted(str(path.relative_to(root()).with_suffix("")) for path in root().glob(f"*/*{SUFFIX}"))


def near(path: Path) -> list[str]:
    """Names like that of ``path``, which is not there."""
    asked = str(path.with_suffix("") if path.suffix == SUFFIX else path).removeprefix(f"{FOLDER}/")
    return difflib.get_close_matches(asked[:200], names(), n=3, cutoff=0.7)


@dataclass(frozen=True)
class Preset:
    """What the head of a configuration says: a line, and Cost, Published and Measured where it has them."""

    name: str
    title: str
    facts: dict[str, str]


def described(name: str) -> Preset:
    """A configuration by its name."""
    lines = []
    for line in (root() / f"{name}{SUFFIX}").read_text().splitlines():
        if not line.startswith("#"):
            break
        text = line.removeprefix("#").strip()
        lines += [] if text.startswith("distributed-dd ") else [text]
    title, *rest = _FACT.split(" ".join(lines))
    return Preset(name, title.strip(), {word: text.strip() for word, text in zip(rest[::2], rest[1::2], strict=True)})
