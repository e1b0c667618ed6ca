"""The contract of a method: a frozen dataclass of settings, and what makes its outer steps.

Layers below know methods by this contract alone; layers above find them in the table in ``methods/``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor

from distributed_dd.data import Facts
from distributed_dd.evaluation.artefact import load_distilled
from distributed_dd.evaluation.elsewhere import Elsewhere, SetElsewhere
from distributed_dd.evaluation.product import Product
from distributed_dd.evaluation.words import SweepAxis, Words
from distributed_dd.learning.networks import Network
from distributed_dd.outer.checkpoint import Checkpoints
from distributed_dd.outer.division import Division
from distributed_dd.outer.learner import Held, Learner
from distributed_dd.outer.look import Look
from distributed_dd.outer.ports import Job, Progress
from distributed_dd.outer.prelude import Prelude
from distributed_dd.outer.scale import Scale, Work
from distributed_dd.outer.world import World
from distributed_dd.unroll import Ranks, Stored

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Seat:
    """What one rank works with.

    Attributes:
        classes: of all rows of the set, (n,).
        stored: from numbers of parameters and of steps to a factory of the place where an unroll keeps them.
    """

    ranks: Ranks
    classes: Tensor
    stored: Callable[[int, int], Callable[[], Stored]]


@dataclass(frozen=True)
class Found:
    """The result of one outer step on this rank, before the sums over ranks.

    Attributes:
        gradients: of what is learned, by name, shaped as `Learner.read` gave it; their sum over ranks counts.
        parts: float64 (k,) by name, what was measured; their sums over ranks count.
        renewed: rows that are not learned and are replaced, by name.
    """

    gradients: Mapping[str, Tensor]
    parts: Mapping[str, Tensor]
    renewed: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What the sums over ranks say of an outer step.

    Attributes:
        metrics: for ``metrics.jsonl``, the same on every rank.
        num_counted: the update takes the gradients divided by this; 0: no update is made.
    """

    metrics: dict[str, float]
    num_counted: float = 1.0


class Steps(ABC):
    """The outer steps of one rank, between which it may hold what depends on the set.

    Attributes:
        many_sets: whether the same steps are asked at several sets: what does not depend on the set may be kept.
    """

    many_sets: bool = False

    @abstractmethod
    def gradient(self, step: int, held: Held, prepared: Any) -> Found:
        """The gradient of outer step ``step`` at the set as it is; a pure function of the set and `state`.

        All chance comes from ``generator(seed, .., step, ..)``: the same in any process. ``prepared`` is what the
        method's chain made for it.
        """

    def verdict(self, sums: Mapping[str, Tensor]) -> Verdict:
        """What the sums over ranks of `Found.parts` say; by default the one loss, under its own name."""
        return Verdict({name: value.sum().item() for name, value in sums.items()})

    def rate_factor(self, step: int) -> float:
        """What multiplies all learning rates in the update of outer step ``step``; a function of it and of `state`.

        The same on every rank; asked after `gradient` and `verdict`, where an update is made.
        """
        return 1.0

    def updated(self, step: int, learner: Learner) -> dict[str, float]:
        """Called after the update, for what learns from the set itself; returns further metrics."""
        return {}

    def state(self) -> Tensors:
        """What depends on the set and cannot be made again: a checkpoint holds it. The same on every rank."""
        return {}

    def load(self, state: Tensors) -> None:
        """The inverse of `state`, before the first outer step of this process; empty at the start of a run."""
        if state:
            raise RuntimeError(f"{type(self).__name__} keeps no state, and was given {', '.join(state)}")


class Method(ABC):
    """What is distilled, and how; a frozen dataclass of settings, chosen by ``kind``."""

    name: str
    """Of the point in the space of settings, such as a paper's; reports call it so."""
    words: ClassVar[Words]
    no_facts: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """What is counted over all outer steps, before the first."""
    carries: ClassVar[tuple[str, ...]] = ("train",)
    """Which of `World.real` every rank needs."""
    tried_elsewhere: ClassVar[tuple[type[Elsewhere], ...]] = (SetElsewhere,)
    """What of it ``evaluate FOLDER`` can try on other networks."""
    learns_a_set: ClassVar[bool] = False
    """Whether images are what is learned: they can be stored in any form, and some can be real ones."""
    unsearched: ClassVar[tuple[str, ...]] = ()
    """Fields that decide how trials are compared: a sweep may not vary them."""
    dimensions: ClassVar[Mapping[str, type]] = MappingProxyType({})
    """Dimensions of a sweep that only this method has, by kind."""

    @abstractmethod
    def job(self, world: World, checkpoints: Checkpoints) -> Job:
        """The distillation as it is sent to every rank; ``world`` is the driver's."""

    @abstractmethod
    def division(self, world: World) -> Division:
        """What of an outer step can be divided over ranks."""

    @abstractmethod
    def product(self, world: World, folder: Path) -> Product:
        """What comes out, in a run folder."""

    @abstractmethod
    def work(self, scale: Scale) -> Work:
        """What an experiment takes."""

    def prelude(self, world: World, varied: Collection[str] = ()) -> Prelude | None:
        """What runs share; None where nothing is needed.

        ``varied``: the fields that a sweep varies, whose trials need the same prelude.
        """
        return None

    @property
    def shared_fields(self) -> tuple[str, ...]:
        """Fields that the prelude depends on: trials of a sweep that vary them make their own."""
        return ()

    def prelude_found(
        self, world: World, manifest: Mapping[str, Any], place: str, say: Callable[[str], None]
    ) -> Prelude | None:
        """The prelude of a finished result, found below ``place``; None without one, or, said, where it is gone."""
        return None

    def imported(
        self,
        source: Path,
        to: Path | None,
        output: Path,
        network: Network,
        facts: Callable[[], Facts],
        progress: Progress,
    ) -> str | None:
        """Take over others' files as what runs share: into ``to``, or where such things lie below ``output``.

        Returns where it is now; None where ``source`` holds no such files.
        """
        return None

    @classmethod
    def begun_from(cls, values: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
        """A first configuration for a data set of these facts; both as people write it.

        ``values`` were chosen for another data set, whose data, network and evaluation are replaced already.
        """
        return dict(values)

    def loaded(self, folder: Path) -> Any:
        """The result in a run folder, ready to be used: by default the distilled set.

        Raises:
            MissingInputError: the folder holds none. IntegrityError: a file is not what was written.
        """
        return load_distilled(folder)

    def elsewhere(self, folder: Path) -> Elsewhere:
        """What of a folder can be tried on other networks."""
        return SetElsewhere()

    def with_fewer(self, num_experts: int) -> "Method":
        """This method with at most so many experts, where it has any: for a first look."""
        return self

    def look(self, world: World) -> Look | None:
        """What is needed to ask its loss of any set, in the driver; None where that cannot be asked.

        ``world`` has the prelude, made. Methods that do not say how cannot be diagnosed.
        """
        return None

    def check(self, world: World) -> None:
        """Refuse, before anything starts, what cannot be done."""
        return None

    def notes(self, world: World) -> list[str]:
        """What a person should know before it starts."""
        return []

    def count(self, step: int, metrics: dict[str, float], facts: dict[str, Any]) -> Iterator[str]:
        """Count in ``facts`` what an outer step did; yields what a person must hear."""
        return iter(())

    def sweep_axis(self) -> SweepAxis | None:
        """Along which a picture shows the trials of a sweep."""
        return None

    def on_axis(self, num_outer_steps: int) -> tuple[float, float] | None:
        """Where a trial lies on that axis after so many outer steps."""
        return None

    def sweep_lines(self, varied: Collection[str]) -> list[str]:
        """What `show` says of a sweep beside the usual."""
        return []
