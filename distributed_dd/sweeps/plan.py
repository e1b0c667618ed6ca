"""A sweep file made ready: a base configuration for each images per class, checked before anything starts."""

import dataclasses
import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed_dd import config
from distributed_dd.durable import digest
from distributed_dd.errors import ConfigError
from distributed_dd.evaluation.words import SweepAxis
from distributed_dd.experiment import Experiment, experiment_of, identity_of, lifted_groups, values_of
from distributed_dd.family import build, identity, lifted_fields, paths_where, plain, require
from distributed_dd.methods import DIMENSIONS
from distributed_dd.nested import at, laid_over, placed
from distributed_dd.outer.method import Method
from distributed_dd.places import name_in_path
from distributed_dd.search.space import Space
from distributed_dd.search.sweep import Automatic, Grid, Population, Search, Sweep

SIZE = "{images_per_class}"
NOT_SEARCHED = ("images_per_class", "num_outer_steps", "seed", "data", "evaluate")
"""They decide how trials are compared: searched, they would win by other means."""


@dataclass(frozen=True)
class Plan:
    """A sweep and the configurations that it varies, by images per class."""

    sweep: Sweep
    name: str
    bases: dict[int, Experiment]
    space: Space

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides about the result."""
        bases = {str(size): identity_of(base) for size, base in self.bases.items()}
        return digest({"sweep": identity(self.sweep), "bases": bases})

    @property
    def folder(self) -> Path:
        """Where everything of the sweep lies; absolute, as trials start elsewhere."""
        return Path(self.sweep.output).absolute() / "sweeps" / f"{name_in_path(self.name)}-{self.digest[:8]}"

    @property
    def search(self) -> Search:
        """The search that proposes points; ``auto`` resolved for this machine."""
        search = self.sweep.search
        return search.installed() if isinstance(search, Automatic) else search

    def values(self, size: int) -> dict[str, Any]:
        """The base for ``size`` images per class, as plain values whose folders hold from anywhere."""
        base = self.bases[size]
        values = values_of(base)
        if self.space.touches("set"):
            values["set"] = plain(base.set)  # left out where it says nothing, and here it is where trials differ
        values["output"] = str(Path(values["output"]).absolute())
        values["results"] = None  # of the sweep's report and its winners, not of every trial
        for key in paths_where(base, "place", True):
            place = at(values, key)
            if place is not None and "://" not in place:
                values = placed(values, key, str(Path(place).absolute()))
        return values

    @property
    def method(self) -> Method:
        """That of the first base: all studies of a sweep are of one kind."""
        return next(iter(self.bases.values())).method

    @property
    def axis(self) -> SweepAxis | None:
        """The axis along which pictures show trials; None where the method has none."""
        return self.method.sweep_axis()

    def points(self, size: int) -> list[dict[str, float]]:
        """What is tried first: the base, where it lies in the space; for a grid, then all the rest."""
        values = self.values(size)
        located = self.space.located(values)
        first = [] if located is None else [located]
        if not isinstance(self.search, Grid):
            return first
        seen = [self.space.settings(point, values) for point in first]
        rest = (p for p in self.space.grid(values) if self.space.settings(p, values) not in seen)
        return [*first, *itertools.islice(rest, self.sweep.num_trials)]

    def num_trials(self, size: int) -> int:
        """Trials of the study; a grid may have fewer points than are asked for."""
        if isinstance(self.search, Grid):
            return min(self.sweep.num_trials, len(self.points(size)))
        return self.sweep.num_trials


def planned(file: Path, overrides: list[str]) -> Plan:
    """The plan that a sweep file and overrides describe.

    Raises:
        ConfigError: the sweep cannot be run, or some point of its space gives a configuration that cannot.
    """
    values = config.read(file, overrides)
    require(
        "space" in values,
        str(file),
        "is no sweep file: it has no space",
        "base, images_per_class, num_trials and space, as in configs/tune/digits_datm_window.yaml",
        f"distributed-dd run {file}, if it is a configuration",
    )
    _refuse_keys_of_the_base(values)
    sweep: Sweep = build(Sweep, values)
    require("images_per_class" not in sweep.settings, "settings.images_per_class", "is what studies differ in")
    space = Space.of(sweep.space, DIMENSIONS)
    bases = {size: _base(file, sweep, size) for size in sweep.images_per_class}
    for base in bases.values():
        _check_fields(space, base)
    plan = Plan(sweep, sweep.name or file.stem, bases, space)
    for size in bases:
        _check(plan, size)
    return plan


def _refuse_keys_of_the_base(values: Mapping[str, Any]) -> None:
    """A key of a configuration at the top level of a sweep was meant for its base.

    Raises:
        ConfigError: there is such a key.
    """
    own = {field.name for field in dataclasses.fields(Sweep)}
    of_base = {field.name for field in dataclasses.fields(Experiment)} | {*lifted_groups()}
    for key in values:
        if key not in own and key in of_base:
            raise ConfigError(key, "is a setting of the base", allowed=f"settings.{key}", fix=f"settings.{key}=..")


def _check_fields(space: Space, base: Experiment) -> None:
    """Refuse fields that decide how trials are compared, or where things lie.

    Raises:
        ConfigError: a dimension sets such a field.
    """
    unsearched = (*NOT_SEARCHED, *base.method.unsearched, *paths_where(base, "identity", False))
    for key in space.dimensions:
        field = next((name for name in unsearched if f"{key}.".startswith(f"{name}.")), "")
        own_groups = [*lifted_fields(type(base.method)), *(["set"] if base.method.learns_a_set else [])]
        groups = ", ".join(["method", "network", "preprocessing", *own_groups])
        require(
            not field,
            f"space.{key}",
            "decides how trials are compared, not what is distilled",
            f"fields of {groups}",
            f"settings.{key} sets it for all trials",
        )


def _base(file: Path, sweep: Sweep, size: int) -> Experiment:
    path = Path(os.path.normpath(file.parent / sweep.base.replace(SIZE, str(size))))
    values = laid_over(config.read(path), {**sweep.settings})
    values |= {"images_per_class": size, "output": sweep.output, "resume": "auto"}
    if sweep.tracker is not None:
        values["tracker"] = sweep.tracker
    try:
        base = experiment_of(values)
    except ConfigError as error:
        where = f"{path}, with the sweep's settings: {error.where}"
        raise ConfigError(where, error.problem, allowed=error.allowed, fix=error.fix) from None
    return base


def _check(plan: Plan, size: int) -> None:
    """Try corners and random points of the space: what fails should fail now."""
    values, space = plan.values(size), plan.space
    plan.search.check(space, space.coordinates(values))
    for probe in space.probes(values, plan.sweep.seed):
        settings = space.settings(probe, values)
        try:
            _check_form(experiment_of(laid_over(values, settings)))
        except ConfigError as error:
            point_line = ", ".join(f"{key}={value}" for key, value in settings.items())
            keys = [key for key in settings if f"{key}.".startswith(f"{error.where}.")]
            where = f"space.{keys[0]}" if keys else f"space, {point_line}: {error.where}"
            fix = _fix_in_a_sweep(error, space)
            raise ConfigError(where, error.problem, allowed=error.allowed, fix=fix) from None
    require(
        not isinstance(plan.search, Population) or plan.sweep.num_trials >= 2,
        "num_trials",
        f"a population of {plan.sweep.num_trials}",
        "2 or more",
    )


def _check_form(experiment: Experiment) -> None:
    """Refuse a form that images do not fit, where their shape is known without reading them.

    Raises:
        ConfigError: the set cannot be stored in its form.
    """
    if experiment.data.facts is not None:
        experiment.set.form.check(experiment.data.facts.image_shape)


def _fix_in_a_sweep(error: ConfigError, space: Space) -> str:
    """What to do about an error of a trial: keys that only some kinds have depend on who says the kind."""
    if error.where in lifted_groups():
        return "a sweep for each kind of method; distributed-dd report compares their runs"
    group = error.where.rpartition(".")[0]
    of_other_kinds = error.fix.startswith(f"{group}.kind=")
    if not (of_other_kinds or error.problem.startswith("missing")):
        return error.fix
    sets_the_kind = [key for key in space.dimensions if f"{group}.kind.".startswith(f"{key}.")]
    if not sets_the_kind:
        return f"settings.{error.fix}, for all trials" if of_other_kinds else error.fix
    return (
        f"space.{group}: {{kind: choice, values: [{{kind: .., ..}}, ..]}}, each kind with keys of its own, and "
        f"no other dimension of {group}"
    )
