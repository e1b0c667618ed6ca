"""The text of a data set's card: what a stranger needs to use a distilled set as it was meant, and what it reached."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from distributed_dd.evaluation.distilled_set import pictures_per_class
from distributed_dd.evaluation.published_sets.columns import SOFT, TOP_CLASSES, TOP_PROBABILITIES
from distributed_dd.evaluation.report import titled
from distributed_dd.evaluation.sizes import in_words
from distributed_dd.evaluation.tables import markdown, percent

LOAD = """```python
import torch
from datasets import load_dataset

rows = load_dataset("FOLDER_OR_REPOSITORY", split="train").with_format("torch")
images, classes = rows["values"][:], rows["label"][:]  # as networks see them
{labels}
# Train a network on (images, targets) with torch.nn.CrossEntropyLoss and SGD of learning rate {rate:.6g}.
# Real images are preprocessed likewise before they are classified: see below.
```
"""


def card_text(
    *,
    manifest: Mapping[str, Any],
    report: Mapping[str, Any] | None,
    sha256: Mapping[str, str],
    sizes: dict[str, int],
    learning_rate: float,
    columns: Sequence[str],
    lost: Mapping[str, float] | None,
) -> str:
    """The card below its front matter, as Markdown.

    Args:
        report: of the run, where there is one. sha256: of the files beside the card. sizes: bytes per class.
        lost: what coding costs the labels, as `coded_labels.cost` measures it; None: they are kept exactly.
    """
    data, number = manifest["dataset"], pictures_per_class(manifest)
    imported = (manifest.get("distillation") or {}).get("imported")
    made = "A set that was imported; how it was made is not recorded" if imported else f"Made by {manifest['method']}"
    parts = [
        f"# {data['name']}, distilled to {number} image{'s' * (number != 1)} per class",
        f"{made}, by [distributed-dd]. Source: {data['name']}, SHA-256 of its content `{data['sha256']}`.",
        "## Load and train",
        LOAD.format(labels=_labels_line(columns), rate=learning_rate),
        "`image` is a PNG for people: rounded to bytes, and cut to their range. `values` are the exact numbers.",
        _about_labels(columns, lost),
        in_words(sizes),
        "## Accuracy",
        _figures(report),
        "## Recipe of evaluation",
        _as_json({"network": manifest["network"], "evaluation": manifest["evaluation"]}),
        "## Preprocessing",
        "`preprocessing.safetensors` holds `mean`, `forward` and `inverse`:",
        _as_json(manifest["preprocessing"]),
        "## Files",
        markdown(("file", "SHA-256"), [[name, f"`{digest}`"] for name, digest in sha256.items()]),
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def size_category(count: int) -> str:
    """The hub's word for so many rows."""
    bounds = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))
    return next((word for bound, word in bounds if count < bound), "1M<n<10M")


def _labels_line(columns: Sequence[str]) -> str:
    if SOFT in columns:
        return f'targets = rows["{SOFT}"][:].softmax(1)  # the column holds logits'
    return "targets = classes"


def _about_labels(columns: Sequence[str], lost: Mapping[str, float] | None) -> str:
    if lost is None:
        return "Labels are exactly those of the set." if SOFT in columns else "Labels are classes."
    return (
        f"`{TOP_CLASSES}` are the likeliest classes of an image and `{TOP_PROBABILITIES}` their probabilities as whole "
        "numbers, divided by the largest that their bits hold; the other classes share the rest alike. This costs, as "
        f"a mean over images, a KL divergence of {lost['kl_divergence']:.3g} nats and changes a probability by "
        f"{lost['absolute_change']:.3g}."
    )


def _figures(report: Mapping[str, Any] | None) -> str:
    if report is None:
        return "No report lies beside this set."
    lines = [[titled(row["name"], {}), row["labels"], percent(row), str(row["num_networks"])] for row in report["rows"]]
    table = markdown(("trained on", "labels", "test accuracy, %", "networks"), lines)
    protocol = f" {report['scored_by']}" if "scored_by" in report else ""
    return (
        f"{table}\nMean ± standard deviation over fresh networks, {report['num_test']} test images, which were touched "
        f"once.{protocol}"
    )


def _as_json(values: Mapping[str, Any]) -> str:
    return f"```json\n{json.dumps(values, indent=2)}\n```"
