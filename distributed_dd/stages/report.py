"""``report.json`` for programs, ``report.md`` for people."""

from typing import Any

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


def page(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        f"# {report['dataset']}, {report['method']}, {report['images_per_class']} images per class",
        "",
        "| trained on | labels | network | test accuracy, % (mean ± std) | networks |",
        "|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        accuracy = f"{100 * row['accuracy_mean']:.1f} ± {100 * row['accuracy_std']:.1f}"
        title = TITLES.get(row["name"], row["name"])
        lines.append(f"| {title} | {row['labels']} | {row['network']} | {accuracy} | {row['num_networks']} |")
    lines += [
        "",
        f"Chosen on validation: outer step {report['best_step']} of {report['num_outer_steps']} "
        f"(validation accuracy {100 * report['validation_accuracy']:.1f} %).",
        f"Test set: {report['num_test']} images, touched once.",
        "",
        "| stage | seconds | peak memory, MiB |",
        "|---|---|---|",
    ]
    for stage, seconds in report["seconds"].items():
        memory = report["peak_memory_bytes"].get(stage, 0) / 2**20
        lines.append(f"| {stage} | {seconds:.1f} | {memory:.0f} |")
    return "\n".join(lines) + "\n"
