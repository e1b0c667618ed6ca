"""The whole configuration of a run, as one frozen object, and its way from and to plain values.

Groups that a method has to itself but that people write at the top level, such as ``experts:``, are *lifted* fields of
the method: `experiment_of` puts them where they belong, `values_of` and `identity_of` write them where they are read.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from distributed_dd.data import DATA_SETS, PREPROCESSINGS, DataSource, Preprocessing
from distributed_dd.data.whitening import ZCA
from distributed_dd.errors import ConfigError
from distributed_dd.evaluation.settings import Evaluation
from distributed_dd.family import MissingError, build, choice, did_you_mean, lifted_fields, plain, require, setting
from distributed_dd.learning.networks import NETWORKS, Network
from distributed_dd.learning.networks.convnet import ConvNet
from distributed_dd.methods import METHODS
from distributed_dd.outer.method import Method
from distributed_dd.outer.set_settings import SetSettings


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One distillation: data, method, evaluation."""

    images_per_class: int = setting(
        "synthetic images of every class, as they are stored", at_least=1, usual="1, 10 or 50"
    )
    num_outer_steps: int = setting(
        "updates of the synthetic set, or of the generator", at_least=1, usual="300 for digits, 5000 for photographs"
    )
    data: DataSource = choice(DATA_SETS, "real images", usual="{kind: digits}, or {kind: folder, path: DIRECTORY}")
    method: Method = choice(METHODS, "what is distilled, and how", usual="{kind: distribution_matching}")
    seed: int = setting("seed of everything random but the data split", 0)
    output: str = setting("folder of all results", "runs", identity=False, folder=True)
    results: str | None = setting(
        "a folder or URI such as s3://bucket/runs to which the run folder is copied at every score and at "
        "the end, and from which it is fetched where it is not here (null: nowhere)",
        None,
        identity=False,
        place=True,
    )
    resume: Literal["auto", "never", "must"] = setting(
        "go on from a checkpoint: if there is one, never, or stop without one", "auto", identity=False
    )
    tracker: Literal["mlflow", "none"] = setting("where people compare runs", "mlflow", identity=False)
    checkpoint_every: int = setting("outer steps between checkpoints", 25, identity=False, at_least=1)
    preprocessing: Preprocessing = choice(PREPROCESSINGS, "pixels to network input", ZCA())
    network: Network = choice(NETWORKS, "network that learns from the set, and of evaluation", ConvNet())
    set: SetSettings = setting("what any distilled set has, whatever the method", SetSettings(), added=True)
    evaluate: Evaluation = setting("evaluation", default_factory=Evaluation)

    def __post_init__(self) -> None:
        require(
            self.set == SetSettings() or self.method.learns_a_set,
            "set",
            f"{self.method.name} learns no set, which could have a form, or rows that are real images",
            "no such group",
            "leave set out",
        )


def lifted_groups() -> dict[str, list[str]]:
    """Groups of a configuration that only some methods have -> the kinds that have them."""
    kinds_by_group: dict[str, list[str]] = {}
    for kind, cls in METHODS.members.items():
        for name in lifted_fields(cls):
            kinds_by_group.setdefault(name, []).append(kind)
    return kinds_by_group


def experiment_of(values: Mapping[str, Any], of_a_record: bool = False) -> Experiment:
    """The experiment that plain values describe.

    Args:
        of_a_record: values that a run wrote; groups that its method has no use for, as older versions wrote them,
            are left out instead of refused.

    Raises:
        ConfigError: unknown key, wrong type, unknown or missing kind, a failed check, a group of other methods.
    """
    lifted = lifted_groups()
    own = [field.name for field in dataclasses.fields(Experiment)]
    for key in values:
        if key not in own and key not in lifted:
            known = [*own, *lifted]
            raise ConfigError(str(key), f"unknown key{did_you_mean(str(key), known)}", allowed=", ".join(known))
    rest = {key: value for key, value in values.items() if key in own}
    groups = {key: value for key, value in values.items() if key in lifted and value is not None}
    if groups and isinstance(rest.get("method"), str | Mapping):
        rest["method"] = _with_groups(rest["method"], groups, lifted, of_a_record)
    try:
        return build(Experiment, rest)
    except MissingError:
        raise  # its keys have no place at the top level
    except ConfigError as error:
        where, kind = error.where, _kind(rest.get("method"))
        for name in (name for name, kinds in lifted.items() if kind in kinds):
            if f"{where}.".startswith(f"method.{name}."):
                where = where.removeprefix("method.")
        raise ConfigError(where, error.problem, allowed=error.allowed, fix=error.fix) from None


def _with_groups(
    method: str | Mapping[str, Any], groups: Mapping[str, Any], lifted: Mapping[str, list[str]], of_a_record: bool
) -> dict[str, Any]:
    """The method's values with the groups that people wrote at the top level."""
    completed = {"kind": method} if isinstance(method, str) else dict(method)
    kind = _kind(method)
    for name, group in groups.items():
        if kind in lifted[name]:
            require(name not in completed, f"method.{name}", "stands at the top level too", f"{name}: alone")
            completed[name] = group
        elif kind in METHODS.members and not of_a_record:
            raise ConfigError(
                name,
                f"method.kind={kind} has no {name}",
                allowed=f"with method.kind {' or '.join(lifted[name])}",
                fix=f"leave {name} out ({name}=null on the command line)",
            )
    return completed


def _kind(method: Any) -> str | None:
    """The kind that plain values of a method name; None where they name none."""
    kind = method.get("kind") if isinstance(method, Mapping) else method
    return kind if isinstance(kind, str) else None


def values_of(experiment: Experiment) -> dict[str, Any]:
    """The inverse of `experiment_of`: nested plain values, lifted groups at the top level.

    Without ``set`` where it says nothing: not every method has one, and most sets are pixels.
    """
    values = _lifted(experiment, plain(experiment))
    return {key: value for key, value in values.items() if key != "set" or experiment.set != SetSettings()}


def identity_of(experiment: Experiment) -> dict[str, Any]:
    """`values_of` without the fields that decide nothing about the result."""
    return _lifted(experiment, plain(experiment, identity_only=True))


def _lifted(experiment: Experiment, values: dict[str, Any]) -> dict[str, Any]:
    method = dict(values["method"])
    groups = {name: method.pop(name) for name in lifted_fields(type(experiment.method))}
    evaluate = values["evaluate"]
    rest = {key: value for key, value in values.items() if key != "evaluate"}
    return {**rest, "method": method, **groups, "evaluate": evaluate}
