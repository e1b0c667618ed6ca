"""The plain twin of the MLflow tracker."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distributed_dd.backends.mlflow.views import View


class NoTracker:
    """The plain twin: tells nobody."""

    run_id = ""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing; ``metrics.jsonl`` has it."""

    def picture(self, name: str, step: int, png: Path) -> None:
        """Nothing."""

    def artefact(self, path: Path) -> None:
        """Nothing."""

    def summary(self, values: Mapping[str, float]) -> None:
        """Nothing; ``report.json`` has it."""

    def view(self, view: View) -> None:
        """Nothing."""

    def tag(self, tags: Mapping[str, str]) -> None:
        """Nothing."""

    def report(self, report: Mapping[str, Any]) -> None:
        """Nothing; it is a file."""

    def system(self, values: Mapping[str, float]) -> None:
        """Nothing."""

    def other(self, record: Path, **told: Any) -> None:
        """Nothing."""

    def end(self, status: str) -> None:
        """Nothing."""
