"""Damages of files: what disks, copies, editors and people do to them, each drawn from a seed."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

Damage = Callable[[Path, Path, random.Random], None]
"""A file, one that may lie in its place, and where chance comes from."""


def flip(path: Path, other: Path, rng: random.Random) -> None:
    """One bit."""
    content = bytearray(path.read_bytes())
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def cut(path: Path, other: Path, rng: random.Random) -> None:
    """The end is missing."""
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content) or 1)])


def empty(path: Path, other: Path, rng: random.Random) -> None:
    """Made, and never filled."""
    path.write_bytes(b"")


def zeros(path: Path, other: Path, rng: random.Random) -> None:
    """A block of zeros, as a disk leaves that lost power."""
    content = bytearray(path.read_bytes())
    start = rng.randrange(len(content) or 1)
    content[start : start + 512] = bytes(len(content[start : start + 512]))
    path.write_bytes(content)


def noise(path: Path, other: Path, rng: random.Random) -> None:
    """Nothing of it is left."""
    path.write_bytes(rng.randbytes(max(1, path.stat().st_size)))


def gone(path: Path, other: Path, rng: random.Random) -> None:
    """Deleted."""
    path.unlink()


def folder(path: Path, other: Path, rng: random.Random) -> None:
    """A folder of that name."""
    path.unlink()
    path.mkdir()


def exchanged(path: Path, other: Path, rng: random.Random) -> None:
    """The file of another run, expert or step in its place."""
    shutil.copy(other, path)


def number(path: Path, other: Path, rng: random.Random) -> None:
    """One number of a JSON file, changed."""
    _change_leaf(path, rng, lambda leaf: isinstance(leaf, int | float) and not isinstance(leaf, bool), lambda n: n + 1)


def word(path: Path, other: Path, rng: random.Random) -> None:
    """One text of a JSON file, changed."""
    _change_leaf(path, rng, lambda leaf: isinstance(leaf, str), lambda text: text[:-1] + "~")


def key(path: Path, other: Path, rng: random.Random) -> None:
    """One key of a JSON file, dropped."""

    def drop(value: dict[str, Any]) -> None:
        del value[rng.choice(sorted(value))]

    _rewritten(path, rng, drop)


def shape(path: Path, other: Path, rng: random.Random) -> None:
    """JSON of another shape."""
    path.write_text(rng.choice(["42", "[]", "null", '"text"', "{}", "[[[[]]]]", "NaN", '{"record": 3}']))


BYTES = [flip, cut, empty, zeros, noise, gone, folder, exchanged]
JSON = [number, word, key, shape]


def damages_of(path: Path) -> list[Damage]:
    """Those that a file can suffer."""
    return BYTES + JSON if path.suffix in (".json", ".jsonl") else BYTES


def _lines(path: Path) -> list[Any]:
    text = path.read_text()
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else [json.loads(text)]


def _written(path: Path, values: list[Any]) -> None:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(value) + "\n" for value in values))
    else:
        path.write_text(json.dumps(values[0], indent=2) + "\n")


def _rewritten(path: Path, rng: random.Random, change: Callable[[Any], None]) -> None:
    values = _lines(path)
    change(rng.choice(values))
    _written(path, values)


def _change_leaf(path: Path, rng: random.Random, fits: Callable[[Any], bool], change: Callable[[Any], Any]) -> None:
    values = _lines(path)
    leaves: list[tuple[Any, Any]] = []

    def look(value: Any) -> None:
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for place, leaf in inner:
            if fits(leaf):
                leaves.append((value, place))
            look(leaf)

    look(values)
    if not leaves:
        shape(path, path, rng)
        return
    value, place = rng.choice(leaves)
    value[place] = change(value[place])
    _written(path, values)
