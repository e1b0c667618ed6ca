"""Which runs may be taken together, and what comes out: those that differ in their seed alone."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from distributed_dd.evaluation.comparison import Finished
from distributed_dd.evaluation.differences import typed, varied

SEED, SIZE = "seed", "images_per_class"


@dataclass(frozen=True, kw_only=True)
class Point:
    """All networks of the runs of one setting: shares in [0, 1].

    Attributes:
        std: sample standard deviation over the networks of all runs; None for one network.
    """

    images_per_class: int
    mean: float
    std: float | None
    num_networks: int
    num_runs: int


@dataclass(frozen=True, kw_only=True)
class Line:
    """Runs of one method that differ in images per class and seed; in other settings only where the size differs too.

    Attributes:
        differences: settings in which it differs from other lines of its method, as typed.
    """

    method: str
    kind: str
    differences: tuple[str, ...]
    runs: tuple[Finished, ...]

    def points(self, name: str) -> list[Point]:
        """A point for each size at which a run has the row ``name``, in order."""
        by_size: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
        for run in self.runs:
            if row := run.row(name):
                by_size[run.report[SIZE]].append(row)
        return [_point(size, rows) for size, rows in sorted(by_size.items())]


def lines_of(runs: Sequence[Finished]) -> list[Line]:
    """The runs of one data set as lines over images per class.

    At one size a line has runs of the same settings and other seeds. Copies of a run count once. Of runs that do not
    say their settings each stands alone.
    """
    by_method: dict[tuple[str, str], list[Finished]] = defaultdict(list)
    for run in runs:
        by_method[run.report["method"], run.kind].append(run)
    return [line for method, own in sorted(by_method.items()) for line in _lines(*method, own)]


def _lines(method: str, kind: str, runs: Sequence[Finished]) -> list[Line]:
    described = {run.folder: _described(run) for run in runs}
    by_size: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for run in runs:
        by_size[run.report[SIZE]].append(described[run.folder])
    keys = set().union(*(varied(peers) for peers in by_size.values())) - {SEED}
    groups: dict[tuple, dict[tuple, Finished]] = defaultdict(dict)
    for run in runs:
        settings = described[run.folder]
        group = tuple((key, repr(settings[key])) for key in sorted(keys) if key in settings)
        groups[group].setdefault((run.report[SIZE], repr(settings.get(SEED))), run)
    lines = []
    for members in groups.values():
        own = tuple(members.values())
        names = ", ".join(dict.fromkeys(run.folder.name.rsplit("-", 1)[-1] for run in own))
        differences = typed(described[own[0].folder], keys, names)
        lines.append(Line(method=method, kind=kind, differences=tuple(differences), runs=own))
    return lines


def _described(run: Finished) -> dict[str, Any]:
    """What must be the same for two runs to be of one setting, and the seed."""
    if not run.settings:
        return {"run": run.folder.name}
    settings = {key: value for key, value in run.settings.items() if key != SIZE}
    return {SEED: 0, **settings, "data_sha256": run.data_sha256[:8]}


def _point(size: int, rows: Sequence[Mapping[str, Any]]) -> Point:
    """Mean and spread over all networks, from the means and spreads of each run: as if they were all of one."""
    counts = [row["num_networks"] for row in rows]
    number = sum(counts)
    mean = sum(n * row["accuracy_mean"] for n, row in zip(counts, rows, strict=True)) / number
    squares = sum(
        (n - 1) * row["accuracy_std"] ** 2 + n * (row["accuracy_mean"] - mean) ** 2
        for n, row in zip(counts, rows, strict=True)
    )
    std = sqrt(squares / (number - 1)) if number > 1 else None
    return Point(images_per_class=size, mean=mean, std=std, num_networks=number, num_runs=len(rows))
