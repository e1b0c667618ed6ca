"""``report.json`` for programs, ``report.md`` for people."""

from typing import Any

from distributed_dd.stages.estimate import size
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
    "generated_fresh": "generated, fresh noise in every epoch",
    "generated_fresh_last_step": "fresh noise, last outer step",
}
OF_A_GENERATOR = {"distilled": "generated, one frozen sample"}


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


def row_title(row: dict[str, Any]) -> str:
    """What a row's networks were trained on; of a generator also by which protocol."""
    name = row["name"]
    return OF_A_GENERATOR.get(name, TITLES.get(name, name)) if "protocol" in row else TITLES.get(name, name)


def chosen_by(report: dict[str, Any]) -> str:
    """By which protocol a generator was chosen; nothing of a set."""
    words = {"fresh": " by the fresh-noise protocol", "frozen": " by the frozen protocol"}
    return words.get(report.get("chosen_by", ""), "")


def remarks(report: dict[str, Any]) -> list[str]:
    """What was chosen how, and for a generator what it takes to keep."""
    lines = [
        f"Chosen on validation{chosen_by(report)}: outer step {report['best_step']} of "
        f"{report['num_outer_steps']} (validation accuracy {100 * report['validation_accuracy']:.1f} %).",
        f"Test set: {report['num_test']} images, touched once.",
    ]
    if storage := report.get("storage_bytes"):
        seen = {row["protocol"]: row["num_images_seen"] for row in report["rows"] if "protocol" in row}
        lines += [
            f"Storage: the generator takes {size(storage['generator'])}, the frozen set "
            f"{size(storage['set'])} (float32).",
            f"A network saw {seen['fresh']:,} different images with fresh noise, {seen['frozen']:,} of the "
            "frozen sample or of random real images.",
        ]
    return lines


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
        lines.append(
            f"| {row_title(row)} | {row['labels']} | {row['network']} | {accuracy} | {row['num_networks']} |"
        )
    lines += [
        "",
        *remarks(report),
        "",
        "| stage | seconds | peak memory of one process, MiB |",
        "|---|---|---|",
    ]
    for stage, seconds in report["seconds"].items():
        memory = report["peak_memory_bytes"].get(stage, 0) / 2**20
        lines.append(f"| {stage} | {seconds:.1f} | {memory:.0f} |")
    return "\n".join(lines) + "\n"
