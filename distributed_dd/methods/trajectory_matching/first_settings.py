"""Settings that were chosen for one data set, as a start on another."""

from collections.abc import Mapping
from typing import Any

from distributed_dd.data import Facts
from distributed_dd.nested import laid_over

UPDATES_PER_EPOCH = 20
"""Updates of an expert in one epoch, which a student of some twenty steps can follow."""
SMALLEST_BATCH = 8
SMALLEST_STUDENT_BATCH = 100
EPOCHS = ("initial_max_start_epoch", "max_start_epoch", "min_start_epoch")


def first_settings(values: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """A configuration whose experts move as far between start and target as those that it was chosen for.

    Of a small data set an epoch has few updates: smaller batches give more, and several epochs count as one.
    The gate is open: how large the loss is at the start is not known yet.
    """
    experts, method = values["experts"], values["method"]
    batch = min(experts["batch_size"], max(SMALLEST_BATCH, facts.num_train // UPDATES_PER_EPOCH))
    updates = -(-facts.num_train // batch)
    times = max(1, round(UPDATES_PER_EPOCH / updates))
    segments = {name: epoch * times for name, epoch in method["segments"].items() if name in EPOCHS}
    num_images = values["images_per_class"] * facts.num_classes
    student_batch = min(num_images, max(method["batch_size"], SMALLEST_STUDENT_BATCH))
    return laid_over(
        values,
        {
            "experts.batch_size": batch,
            "experts.num_epochs": experts["num_epochs"] * times,
            "method.expert_epochs": method["expert_epochs"] * times,
            "method.segments": {**method["segments"], **segments},
            "method.batch_size": student_batch,
            "method.gate": None,
        },
    )
