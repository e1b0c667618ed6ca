"""A sweep as its file says it: what is varied, by which search, on which budget."""

import importlib.util
import math
from dataclasses import dataclass
from typing import Protocol

from distributed_dd.family import Family, choice, require, setting
from distributed_dd.search.space import Coordinate, Space

MOST_SIZES = 100


class Search(Protocol):
    """A strategy that proposes points."""

    def check(self, space: Space, coordinates: dict[str, Coordinate]) -> None:
        """Refuse a space that this search cannot do."""
        ...


@dataclass(frozen=True)
class Automatic:
    """Optuna where it is installed, random otherwise."""

    def check(self, space: Space, coordinates: dict[str, Coordinate]) -> None:
        """Every space can be searched."""

    def installed(self) -> "Search":
        """The search that is used on this machine."""
        return Optuna() if importlib.util.find_spec("optuna") else Random()


@dataclass(frozen=True)
class Optuna:
    """Optuna's tree-structured Parzen estimator: proposes where trials did well so far."""

    num_random: int = setting("trials before the estimator begins to propose", 6, at_least=1)

    def __post_init__(self) -> None:
        require(
            importlib.util.find_spec("optuna") is not None,
            "kind",
            "optuna is not installed",
            fix="pip install optuna, or kind: random",
        )

    def check(self, space: Space, coordinates: dict[str, Coordinate]) -> None:
        """Every space can be searched."""


@dataclass(frozen=True)
class Random:
    """Points drawn at random."""

    def check(self, space: Space, coordinates: dict[str, Coordinate]) -> None:
        """Every space can be searched."""


@dataclass(frozen=True)
class Grid:
    """All points of the grids of all dimensions, as far as num_trials goes."""

    def check(self, space: Space, coordinates: dict[str, Coordinate]) -> None:
        """Every space can be searched."""


@dataclass(frozen=True)
class Population:
    """Population-based training, of learning rates only: the worse copy the better on the way, and vary them.

    num_trials is the size of the population. What comes out is a set made with rates that changed on the way.
    """

    num_intervals: int = setting(
        "equal stretches of outer steps, after each of which members may copy", 4, at_least=2, at_most=10_000
    )

    def check(self, space: Space, coordinates: dict[str, Coordinate]) -> None:
        """Only what may change in the middle of a distillation."""
        for key, coordinate in coordinates.items():
            require(
                key.startswith("method.") and key.endswith("_optimizer.learning_rate") and not coordinate.integer,
                f"space.{key}",
                "cannot change in the middle of a distillation, as search.kind=population would have it",
                "method.image_optimizer.learning_rate, method.label_optimizer.learning_rate, "
                "method.rate_optimizer.learning_rate; uniform or log_uniform",
                f"search.kind=random or optuna, whose trials each begin anew; or settings.{key}, for all trials",
            )


SEARCHES = Family(
    "search",
    {"auto": Automatic, "optuna": Optuna, "random": Random, "grid": Grid, "population": Population},
)


class Schedule(Protocol):
    """A rule for which trials go on."""

    def rungs(self, num_outer_steps: int) -> tuple[int, ...]:
        """The outer steps after which a trial is scored, ascending, the last one included."""
        ...


@dataclass(frozen=True)
class Asha:
    """Asynchronous successive halving: at every rung the best 1 / reduction_factor so far go on."""

    num_rungs: int = setting("scores of a trial that gets to the end", 3, at_least=1, at_most=64)
    reduction_factor: float = setting("outer steps from rung to rung grow by this", 3.0, above=1, at_most=1_000)

    def rungs(self, num_outer_steps: int) -> tuple[int, ...]:
        """About num_outer_steps / reduction_factor ** k."""
        first = self.first_rung(num_outer_steps)
        grown = {math.ceil(first * self.reduction_factor**k) for k in range(self.num_rungs)}
        return (*sorted(step for step in grown if step < num_outer_steps), num_outer_steps)

    def first_rung(self, num_outer_steps: int) -> int:
        """The outer steps that every trial makes."""
        return math.ceil(num_outer_steps / self.reduction_factor ** (self.num_rungs - 1))


@dataclass(frozen=True)
class ToTheEnd:
    """Every trial makes all outer steps."""

    num_rungs: int = setting("scores of every trial, evenly spread", 1, at_least=1, at_most=1_000)

    def rungs(self, num_outer_steps: int) -> tuple[int, ...]:
        """At equal distances, the last outer step included."""
        return evenly(num_outer_steps, self.num_rungs)


SCHEDULES = Family("schedule", {"asha": Asha, "to_the_end": ToTheEnd})


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A search for every images per class; the base configuration itself is the first trial of each."""

    base: str = setting(
        "configuration that is varied, relative to this file; {images_per_class} in it names one for each"
    )
    images_per_class: tuple[int, ...] = setting("sizes; each has a study of its own", at_least=1)
    space: dict = setting("fields of the configuration, each with a dimension by kind")
    num_trials: int = setting("trials of each study, the base configuration among them", at_least=1, at_most=10_000)
    hours: float | None = setting("for all studies together; null: no limit", None, identity=False, above=0)
    name: str | None = setting("in folders and tags; null: the file's", None)
    settings: dict = setting("laid over every base", default_factory=dict)
    search: Search = choice(SEARCHES, "who proposes", Automatic())
    schedule: Schedule = choice(SCHEDULES, "which trials go on", Asha())
    validation_networks: tuple[int, ...] = setting(
        "fresh networks of a score at the first, second .. rung; the last entry is for all further ones",
        (1, 2, 4),
        at_least=1,
        at_most=10_000,
    )
    num_finalists: int = setting(
        "trials that are scored again, with final_networks other networks, to choose between them",
        3,
        at_least=1,
    )
    final_networks: int = setting("fresh networks of that score, on validation", 8, at_least=1, at_most=10_000)
    test_winner: bool = setting("run and test the best configuration of every study at the end", True)
    max_concurrent: int | None = setting(
        "trials at a time (null: as many as the cluster holds)", None, identity=False, at_least=1
    )
    seed: int = setting("seed of the search", 0)
    output: str = setting("folder of all results", "runs", identity=False, folder=True)
    tracker: str | None = setting(
        "mlflow or none, for all runs of the sweep; null: as the base says", None, identity=False
    )

    def __post_init__(self) -> None:
        num_sizes = len(self.images_per_class)
        require(1 <= num_sizes <= MOST_SIZES, "images_per_class", f"names {num_sizes} sizes", "a list such as [1, 10]")
        require(
            len(set(self.images_per_class)) == len(self.images_per_class),
            "images_per_class",
            "names a size twice",
        )
        networks = self.validation_networks
        require(
            bool(networks),
            "validation_networks",
            "is empty",
            "a list of numbers, each 1 or more",
        )

    def rungs(self, num_outer_steps: int) -> tuple[int, ...]:
        """Outer steps after which a trial is scored."""
        if isinstance(self.search, Population):
            return evenly(num_outer_steps, self.search.num_intervals)
        return self.schedule.rungs(num_outer_steps)

    def networks(self, num_rungs: int) -> tuple[int, ...]:
        """Fresh networks of the score at each rung."""
        networks = self.validation_networks
        return tuple(networks[min(rung, len(networks) - 1)] for rung in range(num_rungs))


def evenly(num_outer_steps: int, num: int) -> tuple[int, ...]:
    """``num`` outer steps in equal distances, the last one included."""
    num = min(num, num_outer_steps)
    return tuple(math.ceil(num_outer_steps * (rung + 1) / num) for rung in range(num))
