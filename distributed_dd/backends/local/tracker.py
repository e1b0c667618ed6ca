"""The plain twin of the MLflow tracker."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distributed_dd.backends.mlflow.views import View


class NoTracker:
    """A tracker that records nothing."""

    run_id = ""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Does nothing; ``metrics.jsonl`` has the numbers."""

    def picture(self, name: str, step: int, png: Path) -> None:
        """Does nothing."""

    def artefact(self, path: Path) -> None:
        """Does nothing."""

    def summary(self, values: Mapping[str, float]) -> None:
        """Does nothing; ``report.json`` has the numbers."""

    def view(self, view: View) -> None:
        """Does nothing."""

    def tag(self, tags: Mapping[str, str]) -> None:
        """Does nothing."""

    def report(self, report: Mapping[str, Any], page: str = "") -> None:
        """Does nothing; the report is a file."""

    def system(self, values: Mapping[str, float]) -> None:
        """Does nothing."""

    def settle_children(self, statuses: Mapping[str, str]) -> None:
        """Does nothing."""

    def other(self, record: Path, **changes: Any) -> None:
        """Does nothing."""

    def end(self, status: str) -> None:
        """Does nothing."""
