"""``report.json`` for programs, ``report.md`` for people."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distributed_dd.data.reading import shown
from distributed_dd.errors import IntegrityError
from distributed_dd.evaluation import learned
from distributed_dd.evaluation.referee import against_controls, paired_differences, points
from distributed_dd.evaluation.settings import EXPERT_RULES
from distributed_dd.evaluation.sizes import in_words
from distributed_dd.evaluation.tables import markdown, percent
from distributed_dd.outer.footprint import Footprint
from distributed_dd.records import read_record, write_record

SCHEMA = 1
MOST_CLASSES_SHOWN = 20
KIND = "report"
NEEDS: dict[str, Any] = {
    "method": str,
    "dataset": str,
    "images_per_class": int,
    "num_outer_steps": int,
    "rows": list,
    "seconds": dict,
    "peak_memory_bytes": dict,
    "best_step": int,
    "validation_accuracy": float,
    "num_test": int,
}
TITLES = {
    "distilled": "distilled",
    "distilled_hard_labels": "distilled, hard labels",
    "distilled_last_step": "distilled, last outer step",
    "starting_set": "starting set, nothing learned",
    "random_real": "random real images",
    "random_real_soft_labels": "random real images, same soft labels",
    "herding": "herding",
    "kmeans": "k-means, nearest real image",
    "kmeans_centroids": "k-means centroids (synthetic)",
    "k_center": "k-centre",
    "herding_features": "herding, in an expert's features",
    "kmeans_features": "k-means, in an expert's features",
    "k_center_features": "k-centre, in an expert's features",
    "el2n": "easiest by EL2N of experts",
    "forgetting": "most often forgotten by experts",
    "herding_soft_labels": "herding, same soft labels",
    "kmeans_soft_labels": "k-means, same soft labels",
    "kmeans_centroids_soft_labels": "k-means centroids, same soft labels",
    "k_center_soft_labels": "k-centre, same soft labels",
    "full_data": "full data",
    "expert": "experts",
}
TITLES |= {f"{rule}_soft_labels": f"{TITLES[rule]}, same soft labels" for rule in EXPERT_RULES}


def assemble(
    about: dict[str, Any], rows: list[dict], costs: dict[str, Footprint], manifest: dict, num_test: int
) -> dict[str, Any]:
    """``report.json``: accuracies in [0, 1], seconds and peak bytes of each stage.

    ``about``: method, kind, dataset, images_per_class, num_outer_steps, protocol, scored_by.
    """
    return {
        "schema": SCHEMA,
        **about,
        "rows": rows,
        "seconds": {stage: cost.seconds for stage, cost in costs.items()},
        "peak_memory_bytes": {stage: cost.peak_bytes for stage, cost in costs.items()},
        "best_step": manifest["outer_step"],
        "validation_accuracy": manifest["validation_accuracy"],
        "num_test": num_test,
        "paired_differences": paired_differences(rows),
        **({"class_names": list(manifest["class_names"])} if any(row.get("confusion") for row in rows) else {}),
    }


def write(path: Path, owner: str, result: str, report: Mapping[str, Any]) -> None:
    """Write ``report.json``.

    Args:
        owner: digest of the run's configuration. result: of the manifest that the report is about.
    """
    write_record(path, KIND, owner, {**report, "result": result})


def read(path: Path, owner: str, result: str, fix: str) -> dict[str, Any]:
    """The report of a run.

    Raises:
        IntegrityError: it was changed, or is about another run or result.
    """
    report = read_record(path, KIND, owner=owner, fix=fix, needs=NEEDS, older=lambda values: None)
    if report.get("result", result) != result:
        raise IntegrityError(str(path), "is about another result than the one beside it", fix=fix)
    return report


def title(report: dict[str, Any]) -> str:
    """What the report is about, in a line; that nothing was learned stands in it."""
    about = heading(report["dataset"], report["method"], [report["images_per_class"]])
    return f"{about}: nothing was learned" if report.get("unchanged") else about


def heading(dataset: str, method: str, sizes: Sequence[int]) -> str:
    """Data set, method, and how many images per class."""
    return f"{dataset}, {method}, {', '.join(map(str, sizes))} image{'s' * ([*sizes] != [1])} per class"


def titled(row: str, own: Mapping[str, str]) -> str:
    """What a row's networks were trained on; ``own`` are the titles that its method has of its own."""
    return own.get(row, TITLES.get(row, row))


def chosen_by(report: dict[str, Any]) -> str:
    """By which protocol the outer step was chosen, where the method has several."""
    return f" by {report['chosen_by_protocol']}" if "chosen_by_protocol" in report else ""


def remarks(report: dict[str, Any]) -> list[str]:
    """How the outer step was chosen, how large the test split is, and what the method adds."""
    return [
        f"Chosen on validation{chosen_by(report)}: outer step {report['best_step']} of "
        f"{report['num_outer_steps']} (validation accuracy {100 * report['validation_accuracy']:.1f} %).",
        f"Test set: {report['num_test']} images, touched once.",
        *learned.in_words(report, report.get("loss_title", "loss")),
        *([report["scored_by"]] if "scored_by" in report else []),
        *against_controls(report["rows"]),
        *([in_words(report["bytes_per_class"])] if report.get("bytes_per_class") else []),
        *report.get("remarks", ()),
        *(
            f"{row['num_diverged']} of the {row['num_networks']} networks of {titled(row['name'], {})} diverged, and "
            "count as right about nothing."
            for row in report["rows"]
            if row.get("num_diverged")
        ),
    ]


def _by_class(report: Mapping[str, Any]) -> list[str]:
    """Accuracy on each class, and what it is taken for most, of the row that says so."""
    row = next((row for row in report["rows"] if row.get("confusion")), None)
    if row is None or len(row["confusion"]) > MOST_CLASSES_SHOWN:
        return []
    names = _names(report, len(row["confusion"]))
    lines = []
    for number, (counts, right) in enumerate(zip(row["confusion"], row["per_class"], strict=True)):
        others = {other: count for other, count in enumerate(counts) if other != number and count}
        mistaken = max(others, key=lambda other: others[other], default=None)
        share = "-" if mistaken is None else f"{names[mistaken]} ({100 * others[mistaken] / sum(counts):.1f} %)"
        lines.append([names[number], f"{100 * right:.1f}", share])
    columns = ("class", f"accuracy of {titled(row['name'], {})}, %", "most often taken for")
    return ["", markdown(columns, lines)]


def _points(difference: Mapping[str, float] | None) -> str:
    """A paired difference in points; empty where there is none."""
    return "" if difference is None else points(difference["mean"], difference["std"], int(difference["num_pairs"]))


def _names(report: Mapping[str, Any], num_classes: int) -> list[str]:
    """The classes as a table names them: reports of older versions know their numbers alone."""
    names = report.get("class_names", ())
    if len(names) != num_classes:
        return [str(number) for number in range(num_classes)]
    return [shown([name]).replace("|", "\\|") for name in names]


def page(report: dict[str, Any], own: Mapping[str, str]) -> str:
    """The report as Markdown; ``own`` are titles of rows that its method has of its own."""
    columns = ["trained on", "labels", "network", "test accuracy, % (mean ± std)", "networks"]
    rows = [
        [titled(row["name"], own), row["labels"], row["network"], percent(row), str(row["num_networks"])]
        for row in report["rows"]
    ]
    if paired := report.get("paired_differences"):
        columns.append("the set less this, points, paired by seed")
        for line, row in zip(rows, report["rows"], strict=True):
            line.append(_points(paired.get(row["name"])))
    peaks = report["peak_memory_bytes"]
    costs = [
        [stage, f"{seconds:.1f}", f"{peaks.get(stage, 0) / 2**20:.0f}"] for stage, seconds in report["seconds"].items()
    ]
    return "\n".join(
        [
            f"# {title(report)}",
            "",
            markdown(columns, rows),
            *remarks(report),
            *_by_class(report),
            "",
            markdown(("stage", "seconds", "peak memory of one process, MiB"), costs),
        ]
    )
