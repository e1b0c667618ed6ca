"""Sends runs to a tracker that missed them, from what their folders hold."""

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
    folders = {path.parent for path in source.rglob(RECORD)} if source.is_dir() else set()
    return sorted(folders, key=lambda folder: (_role(folder) != "sweep", folder))


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
        record = read_json(folder / RECORD)
        record.pop("runs", None)
        tags = {key: value for key, value in record["tags"].items() if key != PARENT}
        if tags.get("sweep") in parents:
            tags[PARENT] = parents[tags["sweep"]]
        failed: list[str] = []
        tracker = MlflowTracker(database, folder / RECORD, Description(**{**record, "tags": tags}), failed.append)
        if _role(folder) == "sweep":
            parents[tags["sweep_folder"]] = tracker.run_id
        _send(folder, tracker)
        if failed:
            raise MissingInputError(
                "MLflow",
                failed[0].partition(": ")[2] or failed[0],
                fix=f"{number} of {len(folders)} runs were told; the same command goes on",
            )
        say(f"told: {folder.name}")
    return len(folders)


def _send(folder: Path, tracker: MlflowTracker) -> None:
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
    # A trial that a search stopped early is complete without a report, and so is a prelude.
    is_finished_prelude = _role(folder) not in OWN_ROLES and (folder / MANIFEST).exists()
    over = report.exists() or _role(folder) == "trial" or is_finished_prelude
    tracker.end("FINISHED" if over else "KILLED")


def _role(folder: Path) -> str:
    return str(read_json(folder / RECORD).get("tags", {}).get("role", ""))
