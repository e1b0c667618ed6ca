"""A distilled set as a result: images with labels, of a learning rate where one was learned."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed_dd.durable import write_bytes
from distributed_dd.evaluation import artefact
from distributed_dd.evaluation.coresets import Coreset
from distributed_dd.evaluation.preview import preview_png
from distributed_dd.evaluation.product import Describe, Product, Tensors
from distributed_dd.evaluation.rows import Entry
from distributed_dd.evaluation.scoring import Candidate, Fit
from distributed_dd.outer.checkpoint import Saved
from distributed_dd.outer.world import World


@dataclass(frozen=True, kw_only=True)
class SetProduct(Product):
    """A set in ``distilled/`` of a run folder.

    Attributes:
        folder: that one. start: makes the set before the first outer step.
        averaged: whether the average over outer steps is what is scored and kept.
        rows_of, ready_rows_of: rows of the report, from what is evaluated.
    """

    world: World
    folder: Path
    start: Callable[[], Tensors]
    averaged: bool
    rows_of: Callable[[Entry], list[Candidate]]
    ready_rows_of: Callable[[Entry], list[dict[str, Any]]]

    def starting(self) -> Tensors:
        """Images, labels, classes; a learning rate where it is learned."""
        return self.start()

    def read(self, saved: Saved) -> Tensors:
        """The set, or its average over outer steps, which begins with the first of them."""
        return saved.full_set(self.averaged and "average.images" in saved.names())

    def fits(self, tensors: Tensors, members: Iterable[int]) -> list[Fit]:
        """Networks that train on the set with its own rate, or the recipe's."""
        rate = float(tensors["learning_rate"]) if "learning_rate" in tensors else None
        return [
            Fit(images=tensors["images"], labels=tensors["labels"], learning_rate=rate, member=member)
            for member in members
        ]

    def picture(self, start: Tensors, tensors: Tensors, title: str) -> bytes:
        """Start beside result."""
        invert, names = self.world.real.fitted.invert, self.world.real.splits.class_names
        pixels = invert(start["images"]), invert(tensors["images"])
        return preview_png(*pixels, tensors["classes"], names, title)

    def write(self, best: Tensors, last: Tensors, start: Tensors, facts: dict[str, Any], describe: Describe) -> None:
        """The preview, the set, its last step, the manifest."""
        title = f"outer step {facts['best_step']}, chosen on validation"
        write_bytes(self.folder / artefact.PREVIEW, self.picture(start, best, title))
        manifest = describe(facts)
        if "learning_rate" not in best:
            manifest["learning_rate"] = manifest["evaluation"]["learning_rate"] = self._rate
        artefact.write_artefact(self.folder, best, last, self.world.real.fitted, manifest)

    @property
    def _rate(self) -> float:
        return self.world.evaluate.optimizer.learning_rate

    def verify(self) -> None:
        """Open the set and its last step."""
        artefact.load_distilled(self.folder)
        artefact.load_last_step(self.folder)

    def _entry(self, coresets: Sequence[Coreset] = (), start: Tensors | None = None) -> Entry:
        return Entry(
            distilled=artefact.load_distilled(self.folder),
            last=artefact.load_last_step(self.folder),
            world=self.world,
            coresets=coresets,
            start=start,
        )

    def rows(self, coresets: Sequence[Coreset]) -> list[Candidate]:
        """The set and its controls."""
        return self.rows_of(self._entry(coresets, self.start()))

    def ready_rows(self) -> list[dict[str, Any]]:
        """Rows of the method that need no fresh networks."""
        return self.ready_rows_of(self._entry())

    @property
    def folders(self) -> Sequence[Path]:
        """The set's folder alone."""
        return [self.folder]
