"""Runs that a tracker did not hear of, told to it later from what their folders hold."""

import json
from collections.abc import Callable
from pathlib import Path

from distributed_dd.backends.mlflow.tracker import Description, MlflowTracker
from distributed_dd.durable import read_json
from distributed_dd.errors import MissingInputError

RECORD = "tracker.json"
FILES = ("report.json", "report.md", "resolved.yaml", "environment.json", "log.txt")
MANIFEST, PREVIEW = "manifest.json", "preview.png"
OWN_ROLES = ("run", "trial", "sweep")
"""Any other role is of something that runs share."""
PARENT = "mlflow.parentRunId"


def recorded(source: Path) -> list[Path]:
    """Run folders and sweep folders at or below ``source``, sweeps first, as their trials name them."""
    found = {path.parent for path in source.rglob(RECORD)} if source.is_dir() else set()
    return sorted(found, key=lambda folder: (_role(folder) != "sweep", folder))


def output_of(folder: Path) -> Path:
    """The folder of all results to which a run folder belongs: trials, and what runs share, lie deeper."""
    sweeps = [parent for parent in folder.absolute().parents if parent.name == "sweeps"]
    if sweeps:
        return sweeps[0].parent
    parent = folder.absolute().parent
    return parent if _role(folder) in OWN_ROLES else parent.parent


def replay(folders: list[Path], database: Path, say: Callable[[str], None]) -> int:
    """Tell what is missing of each run; returns how many were told. What was told before is not told twice.

    Raises:
        MissingInputError: the server cannot be reached, or fails.
    """
    parents: dict[str, str] = {}
    for number, folder in enumerate(folders):
        told = read_json(folder / RECORD)
        told.pop("runs", None)
        tags = {key: value for key, value in told["tags"].items() if key != PARENT}
        if tags.get("sweep") in parents:
            tags[PARENT] = parents[tags["sweep"]]
        failed: list[str] = []
        tracker = MlflowTracker(database, folder / RECORD, Description(**{**told, "tags": tags}), failed.append)
        if _role(folder) == "sweep":
            parents[tags["sweep_folder"]] = tracker.run_id
        _tell(folder, tracker)
        if failed:
            raise MissingInputError(
                "MLflow",
                failed[0].partition(": ")[2] or failed[0],
                fix=f"{number} of {len(folders)} runs were told; the same command goes on",
            )
        say(f"told: {folder.name}")
    return len(folders)


def _tell(folder: Path, tracker: MlflowTracker) -> None:
    metrics, report = folder / "metrics.jsonl", folder / "report.json"
    step = 0
    for line in metrics.read_text().splitlines() if metrics.exists() else ():
        values = json.loads(line)
        step = values.pop("step")
        tracker.metrics(step, values)
    if _role(folder) == "sweep":
        for path in sorted(folder.iterdir()):
            if path.suffix in (".md", ".png", ".csv", ".yaml") or path == report:
                tracker.artefact(path)
        tracker.end("FINISHED" if report.exists() else "KILLED")
        return
    results = sorted((path.parent for path in folder.glob(f"*/{MANIFEST}")), key=lambda path: path.name, reverse=True)
    shown = [place / PREVIEW for place in (*results, folder) if (place / PREVIEW).exists()]
    for preview in shown[:1]:
        tracker.picture(tracker.description.picture, step, preview)
    if report.exists():
        tracker.report(read_json(report))
    for path in (*results, *(folder / name for name in FILES)):
        if path.exists():
            tracker.artefact(path)
    # A trial that a search stopped early has done all that it was to do, and has no report; nor has a prelude.
    made = _role(folder) not in OWN_ROLES and (folder / MANIFEST).exists()
    over = report.exists() or _role(folder) == "trial" or made
    tracker.end("FINISHED" if over else "KILLED")


def _role(folder: Path) -> str:
    return str(read_json(folder / RECORD).get("tags", {}).get("role", ""))
