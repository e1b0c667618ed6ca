"""The result in a folder, evaluated on other networks: the verb ``evaluate FOLDER``."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from distributed_dd.data import Fitted
from distributed_dd.evaluation import cross_architecture
from distributed_dd.evaluation.artefact import load_distilled
from distributed_dd.evaluation.controls import controls_of, has_room
from distributed_dd.evaluation.cross_architecture import CrossArchitecture, cross_evaluate
from distributed_dd.evaluation.rows import Entry, candidates
from distributed_dd.evaluation.scoring import Candidate
from distributed_dd.outer.ports import Cluster, Progress
from distributed_dd.outer.world import World

Table = tuple[list[str], list[list[str]]]
"""Header and lines."""


class Elsewhere(ABC):
    """One kind of result that a folder can hold.

    Attributes:
        thing: as a person calls it. settings: what may be set on the command line.
        num_real: real images of each class that its controls need at least; None: as many as it has itself.
    """

    thing: ClassVar[str]
    settings: ClassVar[type]
    num_real: ClassVar[int | None] = None

    @abstractmethod
    def opened(self, folder: Path) -> tuple[dict[str, Any], Fitted]:
        """Its manifest, and the preprocessing from pixels to what networks see.

        Raises:
            MissingInputError: the folder holds no such thing. IntegrityError: a file's SHA-256 is not its manifest's.
        """

    def values(self, typed: dict[str, Any]) -> dict[str, Any]:
        """Settings as a person typed them -> as they are built."""
        return typed

    @abstractmethod
    def evaluate(
        self, settings: Any, world: World, cluster: Cluster, progress: Progress, folder: Path
    ) -> dict[str, Any]:
        """Score it; ``folder`` keeps what is done."""

    def sizes(self, settings: Any, manifest: dict[str, Any]) -> Sequence[int]:
        """Images per class of what is scored: as many as its run had."""
        return (manifest["images_per_class"],)

    @abstractmethod
    def page(self, settings: Any) -> str:
        """The name of the file that people read."""

    @abstractmethod
    def table(self, result: dict[str, Any]) -> Table:
        """The result for people."""

    @abstractmethod
    def rows(self, result: dict[str, Any]) -> list[dict[str, Any]]:
        """The result for programs: every row on every network, which it names with its settings."""


@dataclass(frozen=True)
class SetElsewhere(Elsewhere):
    """A distilled set. ``rows_of``: the set and its controls."""

    rows_of: Callable[[Entry], list[Candidate]] = candidates

    thing: ClassVar[str] = "a set"
    settings: ClassVar[type] = CrossArchitecture
    num_real: ClassVar[int | None] = 1

    def opened(self, folder: Path) -> tuple[dict[str, Any], Fitted]:
        """Of a run folder or its ``distilled/``."""
        distilled = load_distilled(folder)
        return distilled.manifest, distilled.preprocessing

    def evaluate(
        self, settings: CrossArchitecture, world: World, cluster: Cluster, progress: Progress, folder: Path
    ) -> dict[str, Any]:
        """On every network, beside the controls."""
        world = settings.fitted_to(world)
        chosen = controls_of(world, cluster, progress)
        entry = Entry(distilled=load_distilled(folder), last=None, world=world, coresets=chosen)
        rows = self.rows_of(entry)
        if not has_room(world, world.stored_per_class):
            rows = [row for row in rows if not row.name.startswith("random_real")]
        return cross_evaluate(settings, entry, rows, cluster, progress, folder)

    def page(self, settings: CrossArchitecture) -> str:
        """One for each protocol that is asked for."""
        return settings.page

    def table(self, result: dict[str, Any]) -> Table:
        """A line a row, a column a network."""
        return cross_architecture.table(result)

    def rows(self, result: dict[str, Any]) -> list[dict[str, Any]]:
        """As they were scored."""
        return [
            {**row, "network": cross_architecture.name_of(entry["network"])}
            for entry in result["networks"]
            for row in entry["rows"]
        ]
