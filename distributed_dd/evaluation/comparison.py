"""Many runs side by side: one table, and the reports that it is made from."""

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from distributed_dd.data.cache import silent
from distributed_dd.durable import read_json
from distributed_dd.errors import IntegrityError, MissingInputError, UserError
from distributed_dd.evaluation import artefact
from distributed_dd.evaluation.differences import typed, varied
from distributed_dd.evaluation.referee import best_coreset, called
from distributed_dd.evaluation.report import KIND
from distributed_dd.evaluation.tables import markdown, percent
from distributed_dd.evaluation.words import Words
from distributed_dd.nested import flattened
from distributed_dd.records import SEAL, opened, owner_of, require_keys, seal_of

SCHEMA = 1
NEEDS = {"dataset": str, "method": str, "images_per_class": int, "rows": list, "num_test": int}
OF_A_ROW = {"name": str, "accuracy_mean": float, "accuracy_std": float, "num_networks": int}
SIZES = "KiB per class, images + labels"
PUBLISHED = Path(__file__).with_name("published.json")
COLUMNS = {
    "distilled": "distilled",
    "distilled_hard_labels": "its hard labels",
    "starting_set": "its start",
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
        configuration = (self._manifest or {}).get("configuration", {})
        return dict(flattened(configuration)) if isinstance(configuration, Mapping) else {}

    @property
    def data_sha256(self) -> str:
        """The hash of the data that the run saw; empty where the set does not say it."""
        dataset = (self._manifest or {}).get("dataset")
        return str(dataset.get("sha256", "")) if isinstance(dataset, Mapping) else ""

    @cached_property
    def _manifest(self) -> dict[str, Any] | None:
        path = self.folder / "distilled" / "manifest.json"
        return _record(path, artefact.KIND, {}) if path.exists() else None

    @property
    def is_checked(self) -> bool:
        """Whether the report carries a digest of itself; those of older versions do not."""
        return SEAL in self.report

    def check(self) -> None:
        """Refuse a report that is not about the result beside it.

        Raises:
            IntegrityError: it is another run's, or about another result; or the result's manifest is damaged.
        """
        manifest = self._manifest
        if manifest is None or SEAL not in manifest or not self.is_checked:
            return
        if (owner_of(self.report), self.report.get("result")) != (owner_of(manifest), seal_of(manifest)):
            raise IntegrityError(str(self.folder / "report.json"), "is about another result than the one beside it")

    @property
    def kind(self) -> str:
        """The method's kind, where the run says it."""
        return str(self.report.get("kind") or self.settings.get("method.kind", ""))

    def row(self, name: str) -> dict[str, Any] | None:
        """One row of the report."""
        return next((row for row in self.report["rows"] if row["name"] == name), None)


def collect(paths: Sequence[Path], say: Callable[[str], None] = silent) -> list[Finished]:
    """Every finished run in or below ``paths``, in the order of the table. A broken one is left out, and named.

    Raises:
        MissingInputError: a path is not there, or none of them holds a finished run. IntegrityError: all are broken.
    """
    by_folder: dict[Path, Finished] = {}
    broken: list[UserError] = []
    for path in paths:
        if not path.is_dir():
            raise MissingInputError(str(path), "there is no such folder", allowed="run folders, or runs/")
        here = [path / "report.json"] if (path / "report.json").exists() else sorted(path.glob("*/report.json"))
        for file in here:
            try:
                if run := _finished(file):
                    by_folder[file.parent.resolve()] = run
            except UserError as error:
                broken.append(error)
                say(f"warning: {file.parent.name} is left out: {error.where} {error.problem}")
    if broken and not by_folder:
        raise broken[0]
    if not by_folder:
        where = ", ".join(map(str, paths))
        raise MissingInputError(where, "no finished run there", fix="distributed-dd run FILE")
    if unchecked := [run for run in by_folder.values() if not run.is_checked]:
        say(f"note: {len(unchecked)} reports carry no digest, as older versions wrote them: they cannot be checked")
    return sorted(by_folder.values(), key=lambda run: run.place)


def _finished(file: Path) -> Finished | None:
    """The run with this report; None where the file is not of a run, as that of a comparison or of a sweep.

    Raises:
        IntegrityError: it is damaged, or not about the result beside it.
    """
    report = _record(file, KIND, {})
    if not {"rows", "best_step"} <= set(report):
        return None
    require_keys(report, NEEDS, str(file))
    for row in report["rows"]:
        require_keys(row if isinstance(row, dict) else {}, OF_A_ROW, f"{file}, rows")
    run = Finished(file.parent, report)
    run.check()
    return run


def _record(path: Path, kind: str, needs: Mapping[str, Any]) -> dict[str, Any]:
    """A record, or values that an older version wrote."""
    values = read_json(path)
    if isinstance(values, dict) and SEAL not in values:
        return values
    return opened(values, str(path), kind, needs=needs)


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
    chosen = any(best_coreset(run.report["rows"]) for run in runs)
    sized = any(run.report.get("bytes_per_class") for run in runs)
    header = ["run", *columns.values(), *(["best coreset"] if chosen else []), *([SIZES] if sized else []), "published"]
    lines, differing = [], _varied(runs)
    for run in runs:
        dataset, per_class, method, _ = run.place
        digest = run.folder.name.rsplit("-", 1)[-1]
        differences = typed(run.settings, differing.get(run.place[:3], ()), digest)
        what = " ".join([f"{dataset} ipc{per_class} {method}", *differences])
        figure = published(dataset, method).get(per_class)
        cells = [_cell(run.row(name)) for name in columns]
        if chosen:
            best = best_coreset(run.report["rows"])
            cells.append(f"{_cell(best)} ({called(best['name'])})" if best else "-")
        if sized:
            cells.append(_sizes(run.report.get("bytes_per_class")))
        doubt = " (unconfirmed)" if (dataset, method) in unconfirmed() else ""
        lines.append([what, *cells, "-" if figure is None else f"{figure:.1f}{doubt}"])
    return header, lines


def _kinds(runs: Sequence[Finished], words: Mapping[str, Words]) -> list[str]:
    """Kinds of method among the runs, in the order of the table."""
    return [kind for kind in words if any(run.kind == kind for run in runs)]


def about_columns(runs: Sequence[Finished], words: Mapping[str, Words]) -> str:
    """The meaning of the columns that only some methods have, in sentences."""
    return " ".join(filter(None, (words[kind].about_columns for kind in _kinds(runs, words))))


def _varied(runs: Sequence[Finished]) -> dict[tuple, set[str]]:
    """For the runs of each place in the table the settings that they do not share."""
    described: dict[tuple, list[Mapping[str, Any]]] = defaultdict(list)
    for run in runs:
        if run.settings:
            described[run.place[:3]].append(run.settings)
    return {place: varied(settings) for place, settings in described.items()}


def _protocol(run: Finished) -> str:
    """How a run was scored; before protocols had names it was by the recipe of its configuration."""
    return str(run.report.get("protocol", {}).get("kind", "ours"))


def page(runs: Sequence[Finished], plots: Sequence[str], words: Mapping[str, Words]) -> str:
    """The table and the plots as Markdown."""
    header, lines = table(runs, words)
    counts = {row["num_networks"] for run in runs for row in run.report["rows"] if row["name"] != "expert"}
    networks = " to ".join(map(str, sorted({min(counts), max(counts)})))
    plural = "networks" if max(counts) > 1 else "network"
    tested = ", ".join(sorted({f"{run.report['dataset']} {run.report['num_test']}" for run in runs}))
    text = markdown(header, lines)
    text += f"\nTest accuracy in %, mean ± standard deviation over {networks} fresh {plural}; "
    text += f"test images: {tested}. Published figures come from the sources' own protocols and sizes.\n"
    text += f"Protocol: {', '.join(sorted({_protocol(run) for run in runs}))}.\n"
    text += f"{note}\n" if (note := about_columns(runs, words)) else ""
    if "accuracy.png" in plots:
        text += "\nIn the picture of accuracies, runs that differ in their seed alone are one point: the mean and the "
        text += "sample standard deviation over all their networks. Runs of other settings are points of their own.\n"
    return text + "".join(f"\n![{name}]({name})\n" for name in plots)


def _sizes(bytes_per_class: Any) -> str:
    if not isinstance(bytes_per_class, Mapping):
        return "-"
    parts = ("images", "labels", *(["form"] if bytes_per_class.get("form") else []))
    return " + ".join(f"{bytes_per_class.get(part, 0) / 2**10:.1f}" for part in parts)


def _cell(row: Mapping[str, Any] | None) -> str:
    return "-" if row is None else percent(row)
