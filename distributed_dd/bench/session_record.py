"""The record of a session on a machine: one JSON file a part, and one page for people."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tabulate import tabulate

from distributed_dd.durable import read_json, write_json, write_text
from distributed_dd.errors import UserError
from distributed_dd.outer.environment import commit

PASSED, FAILED, STOPPED = "passed", "failed", "stopped"
LONGEST_ERROR = 600


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part, done or tried.

    Attributes:
        code: exit status; None where time was up.
        result: what it measured; None where it measured nothing.
        error: the end of what it printed for people, where it did not pass.
    """

    name: str
    command: list[str]
    commit: str | None
    status: str
    code: int | None
    seconds: float
    result: Any
    error: str

    @classmethod
    def of(
        cls, folder: Path, name: str, command: Sequence[str], *, status: str, code: int | None, seconds: float
    ) -> "Part":
        """A part that has just ended; kept in ``folder``."""
        stem = name.replace(" ", "-")
        error = "" if status == PASSED else _read(folder / f"{stem}.err")[-LONGEST_ERROR:]
        part = cls(
            name=name,
            command=[*command],
            commit=commit(),
            status=status,
            code=code,
            seconds=round(seconds, 1),
            result=_result(folder, name, _read(folder / f"{stem}.out")),
            error=error,
        )
        write_json(folder / f"{stem}.json", asdict(part))
        return part

    def summary(self) -> str:
        """In a few words."""
        counts = f", {self.result['summary']}" if self.name == "tests" and self.result else ""
        return f"{self.status}{counts}, {self.seconds:,.0f} s"


def finished_before(folder: Path, name: str, command: Sequence[str]) -> Part | None:
    """The part, if this code has done it by this very command."""
    try:
        part = Part(**read_json(folder / f"{name.replace(' ', '-')}.json"))
    except (UserError, TypeError):
        return None
    same = part.command == [*command] and part.commit == commit()
    return part if same and part.status == PASSED else None


def write_record(folder: Path, machine: Mapping[str, Any], parts: Sequence[Part]) -> None:
    """``session.json`` and ``README.md`` of all that is known so far."""
    write_json(folder / "session.json", {"machine": machine, "parts": [asdict(part) for part in parts]})
    device = machine["gpu"] or machine["processor"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    overview = [{"part": part.name, "outcome": part.summary(), "command": _as_typed(part)} for part in parts]
    text = [f"# {device}", f"Commit {machine['commit']}; {machine['cores']} cores; {versions}.", _table(overview)]
    for part in parts:
        text += [f"## {part.name}", *_details(part)]
    write_text(folder / "README.md", "\n\n".join(text) + "\n")


def _details(part: Part) -> list[str]:
    lines = []
    if part.error:
        lines.append(f"{part.status.capitalize()}:\n\n```\n{part.error.strip()}\n```")
    if part.name == "run":
        lines.append(part.result or "No report.")
    elif isinstance(part.result, dict):
        for key, rows in part.result.items():
            if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
                lines += [f"`{key}`", _table([_flat(row) for row in rows])]
    return lines or [part.summary()]


def _result(folder: Path, name: str, printed: str) -> Any:
    """What a part leaves: counts of tests, the JSON of a bench, the report of a run."""
    if name == "tests":
        return _tests(folder / "tests.xml")
    if name == "run":
        reports = sorted((folder / "runs").glob("*/report.md"))
        lines = reports[-1].read_text().splitlines() if reports else []
        return "\n".join(line.replace("# ", "### ", 1) for line in lines if not line.startswith("![")) or None
    try:
        return json.loads(printed)
    except ValueError:
        return None


def _tests(file: Path) -> dict[str, Any] | None:
    """Counts of a JUnit file, and which tests did not pass, with the first line of why."""
    try:
        cases = [*ElementTree.parse(file).iter("testcase")]
    except (OSError, ElementTree.ParseError):
        return None
    others = []
    for case in cases:
        for outcome in ("failure", "error", "skipped"):
            if (why := case.find(outcome)) is not None:
                first = (why.get("message") or "").split("\n")[0]
                others.append({"test": case.get("name"), "outcome": outcome, "why": first[:200]})
    skipped = sum(row["outcome"] == "skipped" for row in others)
    counts = f"{len(cases) - len(others)} passed, {len(others) - skipped} failed, {skipped} skipped"
    return {"summary": counts, "not passed": others}


def _as_typed(part: Part) -> str:
    return " ".join(["python", *part.command[1:]])


def _flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in row.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": _short(value)}
    return flat


def _short(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    return str(tabulate(rows, headers="keys", tablefmt="pipe", disable_numparse=True))


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
