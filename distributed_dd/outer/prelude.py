"""What runs of a method share and is made before the distillation, such as experts or a GAN."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor

from distributed_dd.errors import ConfigError
from distributed_dd.outer.footprint import Footprint
from distributed_dd.outer.ports import Cluster, Job, Progress, Tracker, Workers
from distributed_dd.outer.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class SharedRun:
    """A prelude's own run, as a tracker shows it.

    Attributes:
        role: the tag that sets it apart. title: of the list of such runs. losses: metrics that people watch.
    """

    role: str
    title: str
    name: str
    parameters: Mapping[str, Any]
    tags: Mapping[str, str]
    losses: Sequence[str]
    picture: str
    num_steps: int


class Crew(Protocol):
    """Those who make a prelude: a run lends them."""

    @property
    def cluster(self) -> Cluster: ...

    @property
    def progress(self) -> Progress: ...

    @property
    def checkpoint_every(self) -> int: ...

    @property
    def max_restarts(self) -> int:
        """How often lost workers are replaced without a checkpoint between."""
        ...

    def workers(self, job: Job, logs: Path) -> Workers:
        """Who makes the outer steps of a job."""
        ...

    def tracker_of(self, shared: SharedRun, folder: RunFolder) -> Tracker:
        """Shows a prelude's own run to people."""
        ...

    def facts_of(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Facts about a distillation, with who did it."""
        ...


@dataclass(frozen=True)
class Made:
    """What making a prelude took.

    Attributes:
        worked: whether anything had to be made.
        peak_bytes: the most that a task held, beside this process.
        cost: of the whole, whoever made it; None where only those who made it know.
    """

    worked: bool
    peak_bytes: int = 0
    cost: Footprint | None = None


@dataclass(frozen=True)
class Listing:
    """A table for people: what a prelude consists of."""

    columns: Sequence[str]
    lines: Sequence[Sequence[str]]
    caption: str


class Prelude(ABC):
    """Made once for all runs with the same settings; found again by what decides about it.

    Attributes:
        stage: what reports and messages call it. tag: under which a tracker keeps its digest.
        views: how it can show the real training images (`view`).
        ranks_images: whether it knows how hard each of them is (`hardness`).
    """

    stage: ClassVar[str]
    tag: ClassVar[str]
    views: ClassVar[tuple[str, ...]] = ()
    ranks_images: ClassVar[bool] = False

    @property
    @abstractmethod
    def digest(self) -> str:
        """Of all that decides about it."""

    def given_digest(self) -> dict[str, Any]:
        """What of it decides about a run beside the configuration; nothing where it follows from that."""
        return {}

    @abstractmethod
    def make(self, crew: Crew, for_use: bool) -> Made:
        """Make what is missing; what is to be used is verified."""

    @abstractmethod
    def missing(self) -> float:
        """How much is still to be made: a number of experts, or 0 or 1."""

    def seconds_missing(self) -> float | None:
        """What that takes one process, as far as what is there tells; None where nothing does."""
        return None if self.missing() else 0.0

    @abstractmethod
    def present(self) -> str:
        """What is there, in a line for `show`."""

    @abstractmethod
    def where(self) -> str:
        """Where it lies, in a sentence."""

    def listing(self) -> Listing | None:
        """What it consists of."""
        return None

    def view(self, name: str, cluster: Cluster, progress: Progress) -> Tensor:
        """One of its `views`: a row (n, ..) for each training image."""
        raise LookupError(name)

    def hardness(self) -> Tensor:
        """A number (n,) for each training image, larger where it is harder."""
        raise LookupError("hardness")

    def carried(self) -> Any:
        """What every rank needs of it; it must be small, or read where it is used."""
        return None

    def provenance(self) -> dict[str, Any] | None:
        """What the manifest of a result says of it."""
        return None

    def export(self, form: str, to: Path, progress: Progress) -> None:
        """Write it in a format of other programs.

        Raises:
            ConfigError: this prelude cannot be exported in that format.
        """
        raise ConfigError("--as", f"{self.stage} cannot be exported", fix="distributed-dd export RUN_FOLDER")
