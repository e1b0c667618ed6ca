"""Many runs side by side: one table, and the reports that it is made from."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from distributed_dd.durable import read_json
from distributed_dd.errors import MissingInputError
from distributed_dd.evaluation.tables import markdown, percent
from distributed_dd.evaluation.words import Words
from distributed_dd.nested import flattened

SCHEMA = 1
MOST_DIFFERENCES = 3
PUBLISHED = Path(__file__).with_name("published.json")
COLUMNS = {
    "distilled": "distilled",
    "distilled_hard_labels": "its hard labels",
    "random_real": "random real",
    "random_real_soft_labels": "random, soft labels",
    "full_data": "full data",
    "expert": "experts",
}


@dataclass(frozen=True)
class Finished:
    """A run folder with its report."""

    folder: Path
    report: dict[str, Any]

    @property
    def place(self) -> tuple:
        """Where it stands in a table: data set, images per class, method, folder."""
        r = self.report
        return r["dataset"], r["images_per_class"], r["method"], self.folder.name

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The configuration as ``key.path`` -> value, where the set says it."""
        manifest = self.folder / "distilled" / "manifest.json"
        return dict(flattened(read_json(manifest).get("configuration", {}))) if manifest.exists() else {}

    @property
    def kind(self) -> str:
        """The method's kind, where the run says it."""
        return str(self.report.get("kind") or self.settings.get("method.kind", ""))

    def row(self, name: str) -> dict[str, Any] | None:
        """One row of the report."""
        return next((row for row in self.report["rows"] if row["name"] == name), None)


def collect(paths: Sequence[Path]) -> list[Finished]:
    """Every finished run in or below ``paths``, in the order of the table.

    Raises:
        MissingInputError: a path is not there, or none of them holds a finished run.
    """
    by_folder: dict[Path, Finished] = {}
    for path in paths:
        if not path.is_dir():
            raise MissingInputError(str(path), "there is no such folder", allowed="run folders, or runs/")
        here = [path / "report.json"] if (path / "report.json").exists() else sorted(path.glob("*/report.json"))
        for file in here:
            report = read_json(file)
            if "rows" in report and "best_step" in report:  # a comparison's own report.json has no such keys
                by_folder[file.parent.resolve()] = Finished(file.parent, report)
    if not by_folder:
        where = ", ".join(map(str, paths))
        raise MissingInputError(where, "no finished run there", fix="distributed-dd run FILE")
    return sorted(by_folder.values(), key=lambda run: run.place)


def unfinished(paths: Sequence[Path]) -> list[Path]:
    """Run folders in ``paths`` that have no report yet."""
    return [
        file.parent
        for path in paths
        for file in sorted(path.glob("*/resolved.yaml"))
        if not (file.parent / "report.json").exists()
    ]


@cache
def _published() -> dict[tuple[str, str], dict[int, float]]:
    results = read_json(PUBLISHED)["results"]
    return {(r["dataset"], r["method"]): {int(n): a for n, a in r["accuracy"].items()} for r in results}


@cache
def unconfirmed() -> frozenset[tuple[str, str]]:
    """(data set, method) whose published figures were not read in their source."""
    results = read_json(PUBLISHED)["results"]
    return frozenset((r["dataset"], r["method"]) for r in results if r.get("unconfirmed"))


def published(dataset: str, method: str) -> dict[int, float]:
    """Published accuracies in % by images per class; empty where none is known."""
    return _published().get((dataset, method), {})


def flat(runs: Iterable[Finished]) -> list[dict[str, Any]]:
    """A line for each row of each run, for programs."""
    return [
        {
            "dataset": run.report["dataset"],
            "method": run.report["method"],
            "images_per_class": run.report["images_per_class"],
            "run": run.folder.name,
            **row,
        }
        for run in runs
        for row in run.report["rows"]
    ]


def as_csv(lines: Sequence[dict[str, Any]]) -> str:
    """The lines as CSV, accuracies in [0, 1]."""
    names = list(dict.fromkeys(key for line in lines for key in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def table(runs: Sequence[Finished], words: Mapping[str, Words]) -> tuple[list[str], list[list[str]]]:
    """Header and lines: a run a line, in per cent, with what was published for the same setting.

    ``words``: of every kind of method.
    """
    own = {name: head for kind in _kinds(runs, words) for name, head in words[kind].columns.items()}
    columns = {**{name: head for name, head in own.items() if name not in COLUMNS}, **COLUMNS, **own}
    columns = {name: head for name, head in columns.items() if any(run.row(name) for run in runs)}
    header = ["run", *columns.values(), "published"]
    lines = []
    for run in runs:
        dataset, per_class, method, _ = run.place
        peers = [other for other in runs if other.place[:3] == run.place[:3]]
        what = " ".join([f"{dataset} ipc{per_class} {method}", *_differences(run, peers)])
        figure = published(dataset, method).get(per_class)
        cells = [_cell(run.row(name)) for name in columns]
        doubt = " (unconfirmed)" if (dataset, method) in unconfirmed() else ""
        lines.append([what, *cells, "-" if figure is None else f"{figure:.1f}{doubt}"])
    return header, lines


def _kinds(runs: Sequence[Finished], words: Mapping[str, Words]) -> list[str]:
    """Kinds of method among the runs, in the order of the table."""
    return [kind for kind in words if any(run.kind == kind for run in runs)]


def about_columns(runs: Sequence[Finished], words: Mapping[str, Words]) -> str:
    """The meaning of the columns that only some methods have, in sentences."""
    return " ".join(filter(None, (words[kind].about_columns for kind in _kinds(runs, words))))


def _differences(run: Finished, peers: Sequence[Finished]) -> list[str]:
    """Settings of ``run`` that not all of its peers share, as typed on the command line."""
    settings = [peer.settings for peer in peers if peer.settings]
    differences = [
        f"{key}={value}" for key, value in run.settings.items() if any(other.get(key) != value for other in settings)
    ]
    return differences if len(differences) <= MOST_DIFFERENCES else [run.folder.name.rsplit("-", 1)[-1]]


def page(runs: Sequence[Finished], plots: Sequence[str], words: Mapping[str, Words]) -> str:
    """The table and the plots as Markdown."""
    header, lines = table(runs, words)
    counts = {row["num_networks"] for run in runs for row in run.report["rows"] if row["name"] != "expert"}
    networks = " to ".join(map(str, sorted({min(counts), max(counts)})))
    tested = ", ".join(sorted({f"{run.report['dataset']} {run.report['num_test']}" for run in runs}))
    text = markdown(header, lines)
    text += f"\nTest accuracy in %, mean ± standard deviation over {networks} fresh networks; "
    text += f"test images: {tested}. Published figures come from the sources' own protocols and sizes.\n"
    text += f"{note}\n" if (note := about_columns(runs, words)) else ""
    return text + "".join(f"\n![{name}]({name})\n" for name in plots)


def _cell(row: dict[str, Any] | None) -> str:
    return "-" if row is None else percent(row)
