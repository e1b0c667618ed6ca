"""Sends runs to a tracker that missed them, from what their folders hold."""

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from distributed_dd.backends.mlflow.description import Description, read_tracked
from distributed_dd.backends.mlflow.tracker import MlflowTracker
from distributed_dd.errors import IntegrityError, MissingInputError, UserError
from distributed_dd.outer.run_folder import Metrics
from distributed_dd.records import read_record

RECORD = "tracker.json"
NAME_OF_RUN = re.compile(r".+-[0-9a-f]{8}")
DESCRIBED = tuple(field.name for field in fields(Description))
FILES = ("report.json", "report.md", "resolved.yaml", "environment.json", "log.txt")
MANIFEST, PREVIEW = "manifest.json", "preview.png"
OWN_ROLES = ("run", "trial", "sweep")
"""Any other role is of something that runs share."""
PARENT = "mlflow.parentRunId"


def recorded(source: Path, say: Callable[[str], None]) -> list[Path]:
    """Run folders and sweep folders at or below ``source``, sweeps first, as their trials name them.

    Those whose record is damaged are left out, and named.
    """
    roles: dict[Path, str] = {}
    for path in source.rglob(RECORD) if source.is_dir() else ():
        try:
            record = read_tracked(path)
            _refuse_another(record["name"], path)
            _refuse_other_metrics(path.parent)
            roles[path.parent] = _role(path.parent)
        except UserError as error:
            say(f"warning: {path.parent.name} is left out: {error.where} {error.problem}")
    return sorted(roles, key=lambda folder: (roles[folder] != "sweep", folder))


def _refuse_another(name: str, path: Path) -> None:
    """Refuse the record of another run. A folder that a person named anew says nothing of whose it is."""
    folder, name = path.parent.name, name.removeprefix("sweep ")
    if NAME_OF_RUN.fullmatch(folder) and NAME_OF_RUN.fullmatch(name) and folder != name:
        raise IntegrityError(str(path), f"is of the run {name}", allowed=folder)


def _refuse_other_metrics(folder: Path) -> None:
    """Refuse to tell of outer steps what the finished run did not measure."""
    if (report := folder / "report.json").exists() and _role(folder) in ("run", "trial"):
        values = read_record(report, "report", needs={"rows": list}, older=lambda values: None)
        Metrics(folder / "metrics.jsonl").check(values.get("metrics_sha256", ""))


def output_of(folder: Path) -> Path:
    """The folder of all results to which a run folder belongs: trials, and what runs share, lie deeper."""
    sweeps = [parent for parent in folder.absolute().parents if parent.name == "sweeps"]
    if sweeps:
        return sweeps[0].parent
    parent = folder.absolute().parent
    return parent if _role(folder) in OWN_ROLES else parent.parent


def replay(folders: list[Path], database: Path, say: Callable[[str], None]) -> int:
    """Send the tracker what it misses of each run, and nothing twice; returns the number of runs.

    Raises:
        MissingInputError: the server cannot be reached, or fails.
    """
    parents: dict[str, str] = {}
    for number, folder in enumerate(folders):
        record = read_tracked(folder / RECORD)
        record = {key: record[key] for key in DESCRIBED}
        tags = {key: value for key, value in record["tags"].items() if key != PARENT}
        if tags.get("sweep") in parents:
            tags[PARENT] = parents[tags["sweep"]]
        failed: list[str] = []
        description, metrics = Description(**{**record, "tags": tags}), Metrics(folder / "metrics.jsonl")
        tracker = MlflowTracker(database, folder / RECORD, description, failed.append, metrics)
        if _role(folder) == "sweep":
            parents[tags["sweep_folder"]] = tracker.run_id
        is_over = _send(folder, tracker)
        if failed:
            raise MissingInputError(
                "MLflow",
                failed[0].partition(": ")[2] or failed[0],
                fix=f"{number} of {len(folders)} runs were told; the same command goes on",
            )
        say(f"told: {folder.name}{'' if is_over else ', which is not finished'}")
    return len(folders)


def _send(folder: Path, tracker: MlflowTracker) -> bool:
    """Send what the folder holds; whether the run is over."""
    report = folder / "report.json"
    if _role(folder) == "sweep":
        for path in sorted(folder.iterdir()):
            if path.suffix in (".md", ".png", ".csv", ".yaml") or path == report:
                tracker.artefact(path)
        tracker.end("FINISHED" if report.exists() else "KILLED")
        return report.exists()
    results = sorted((path.parent for path in folder.glob(f"*/{MANIFEST}")), key=lambda path: path.name, reverse=True)
    shown = [place / PREVIEW for place in (*results, folder) if (place / PREVIEW).exists()]
    for preview in shown[:1]:
        tracker.picture(tracker.description.picture, max(tracker.last_step, 0), preview)
    if report.exists():
        page = folder / "report.md"
        text = page.read_text(errors="replace") if page.is_file() else ""
        tracker.report(read_record(report, "report", needs={"rows": list}, older=lambda values: None), text)
    for path in (*results, *(folder / name for name in FILES)):
        if path.exists():
            tracker.artefact(path)
    # A trial that a search stopped early is complete without a report, and so is a prelude.
    is_finished_prelude = _role(folder) not in OWN_ROLES and (folder / MANIFEST).exists()
    over = report.exists() or _role(folder) == "trial" or is_finished_prelude
    tracker.end("FINISHED" if over else "KILLED")
    return over


def _role(folder: Path) -> str:
    return str(read_tracked(folder / RECORD)["tags"].get("role", ""))
