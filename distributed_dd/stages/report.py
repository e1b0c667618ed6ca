"""``report.json`` for programs, ``report.md`` for people."""

from typing import Any

from distributed_dd.stages.experiment import Experiment
from distributed_dd.stages.footprint import Footprint

SCHEMA = 1
TITLES = {
    "distilled": "distilled",
    "distilled_hard_labels": "distilled, hard labels",
    "distilled_last_step": "distilled, last outer step",
    "random_real": "random real images",
    "random_real_soft_labels": "random real images, same soft labels",
    "full_data": "full data",
    "expert": "experts",
}


def assemble(
    experiment: Experiment, rows: list[dict], costs: dict[str, Footprint], manifest: dict, num_test: int
) -> dict[str, Any]:
    """``report.json``: accuracies in [0, 1], seconds and peak bytes of each stage."""
    return {
        "schema": SCHEMA,
        "method": experiment.method.name,
        "dataset": experiment.data.name,
        "images_per_class": experiment.images_per_class,
        "rows": rows,
        "seconds": {stage: cost.seconds for stage, cost in costs.items()},
        "peak_memory_bytes": {stage: cost.peak_bytes for stage, cost in costs.items()},
        "best_step": manifest["outer_step"],
        "num_outer_steps": experiment.num_outer_steps,
        "validation_accuracy": manifest["validation_accuracy"],
        "num_test": num_test,
    }


def title(report: dict[str, Any]) -> str:
    """What the report is about, in a line."""
    number = report["images_per_class"]
    return f"{report['dataset']}, {report['method']}, {number} image{'s' * (number != 1)} per class"


def page(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        f"# {title(report)}",
        "",
        "| trained on | labels | network | test accuracy, % (mean ± std) | networks |",
        "|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        accuracy = f"{100 * row['accuracy_mean']:.1f} ± {100 * row['accuracy_std']:.1f}"
        name = TITLES.get(row["name"], row["name"])
        lines.append(f"| {name} | {row['labels']} | {row['network']} | {accuracy} | {row['num_networks']} |")
    lines += [
        "",
        f"Chosen on validation: outer step {report['best_step']} of {report['num_outer_steps']} "
        f"(validation accuracy {100 * report['validation_accuracy']:.1f} %).",
        f"Test set: {report['num_test']} images, touched once.",
        "",
        "| stage | seconds | peak memory of one process, MiB |",
        "|---|---|---|",
    ]
    for stage, seconds in report["seconds"].items():
        memory = report["peak_memory_bytes"].get(stage, 0) / 2**20
        lines.append(f"| {stage} | {seconds:.1f} | {memory:.0f} |")
    return "\n".join(lines) + "\n"
