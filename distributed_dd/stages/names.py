"""Short names of fields of a configuration, for tables and for columns of a tracker."""

from collections.abc import Mapping
from typing import Any

from distributed_dd.family import at

SHORT = {
    "method.segments.min_start_epoch": "T-",
    "method.segments.initial_max_start_epoch": "T",
    "method.segments.max_start_epoch": "T+",
    "method.expert_epochs": "M",
    "method.student_steps": "N",
    "method.image_optimizer.learning_rate": "lr images",
    "method.label_optimizer.learning_rate": "lr labels",
    "method.rate_optimizer.learning_rate": "lr rate",
    "method.student_learning_rate": "student lr",
    "method.global_weight": "global weight",
    "method.local_weight": "local weight",
}


def short(key: str) -> str:
    """A field's name in a table."""
    return SHORT.get(key, key.removeprefix("method."))


def parameter(key: str) -> str:
    """A field's name in a tracker, where signs are not allowed: T_minus, lr_images; or the field's own."""
    if key not in SHORT:
        return key
    return SHORT[key].replace("-", "_minus").replace("+", "_plus").replace(" ", "_")


def headline(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields by which runs are compared first, by short name; those that the configuration has."""
    found = {parameter(key): at(values, key) for key in SHORT}
    return {
        name: f"{value:g}" if isinstance(value, float) else value
        for name, value in found.items()
        if value is not None
    }
