"""A distilled set as a result: images with labels, of a learning rate where one was learned."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distributed_dd.durable import write_bytes
from distributed_dd.evaluation import artefact
from distributed_dd.evaluation.coresets import Coreset
from distributed_dd.evaluation.fits import Fit
from distributed_dd.evaluation.preview import preview_png
from distributed_dd.evaluation.product import Describe, Product, Tensors
from distributed_dd.evaluation.rows import Entry, labelled
from distributed_dd.evaluation.scoring import Candidate
from distributed_dd.evaluation.sizes import bytes_per_class, in_a_form
from distributed_dd.family import plain
from distributed_dd.learning.set_forms import SET_FORMS, seen, stored
from distributed_dd.outer import frozen_rows
from distributed_dd.outer.checkpoint import FORM, Saved
from distributed_dd.outer.world import World

TARGETS_ARE = "(n, K), centred at 0, learned by a regression: what a squared error takes as they are; no logits"


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
        """Images, labels, classes, as they are stored; a learning rate where it is learned."""
        return self.as_kept(self.start())

    def as_kept(self, start: Tensors) -> Tensors:
        """In the form of the set, with what that chose by looking at real images."""
        form, world = self.world.form, self.world
        if form.plain:
            return start
        codec = form.fitted(world.image_shape, lambda: world.real.train.images)
        return stored(start, codec) | {f"{FORM}{name}": value for name, value in codec.tensors().items()}

    def read(self, saved: Saved) -> Tensors:
        """The set, or its average over outer steps, which begins with the first of them; as networks see it.

        With it, in a form, what an artefact keeps in place of the images.
        """
        rows = saved.full_set(self.averaged and "average.images" in saved.names())
        if self.world.form.plain:
            return rows
        codec = self.world.form.codec(self.world.image_shape, saved.form_tensors())
        return seen(rows, codec) | artefact.kept_in_form(rows["images"], codec)

    def fits(self, tensors: Tensors, members: Iterable[int]) -> list[Fit]:
        """Networks that train on the set with its own rate, or the recipe's."""
        evaluation = self.world.evaluate
        rate = evaluation.rate_of_set(float(tensors["learning_rate"])) if "learning_rate" in tensors else None
        own = labelled(tensors, evaluation)
        return [
            Fit(
                images=tensors["images"],
                labels=own.labels,
                learning_rate=rate,
                member=member,
                targets=own.are_targets,
            )
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
        manifest = describe(facts) | self._form | frozen_rows.described(self.world)
        if "learning_rate" not in best:
            manifest["learning_rate"] = manifest["evaluation"]["learning_rate"] = self._rate
        if "targets" in best:
            manifest["targets"] = TARGETS_ARE
        artefact.write_artefact(self.folder, best, last, self.world.real.fitted, manifest)

    @property
    def _form(self) -> dict[str, Any]:
        """What the manifest says of the form; nothing of pixels."""
        form, world = self.world.form, self.world
        if form.plain:
            return {}
        settings = {"kind": SET_FORMS.kind_of(form), **plain(form)}
        images = form.in_words(world.image_shape)
        return {"form": {"settings": settings, "images": images}, "pictures_per_class": world.images_per_class}

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
        return self.rows_of(self._entry(coresets, self._start_as_seen()))

    def _start_as_seen(self) -> Tensors:
        start = self.start()
        if self.world.form.plain:
            return start
        codec = artefact.load_distilled(self.folder).codec
        return seen(stored(start, codec), codec)

    def unchanged(self) -> bool:
        """Whether images and labels are those of the start."""
        kept, start = artefact.load_distilled(self.folder).tensors, self._start_as_seen()
        return all(torch.equal(kept[name], start[name].to(kept[name].dtype)) for name in ("images", "labels"))

    def ready_rows(self) -> list[dict[str, Any]]:
        """Rows of the method that need no fresh networks."""
        return self.ready_rows_of(self._entry())

    def bytes_per_class(self) -> dict[str, int] | None:
        """Of its images, and of its label logits or targets."""
        distilled = artefact.load_distilled(self.folder)
        sizes = bytes_per_class(distilled.images, distilled.labels, distilled.learned_targets)
        if self.world.form.plain:
            return sizes
        codec = distilled.codec.tensors().values()
        return in_a_form(sizes, distilled.stored.values(), codec, self.world.num_classes)

    def more_for_the_report(self) -> dict[str, Any]:
        """What a stored image holds, where that is not itself, and rows that were not learned."""
        remarks = frozen_rows.in_words(self.world)
        more = frozen_rows.described(self.world) | ({"remarks": remarks} if remarks else {})
        form, world = self.world.form, self.world
        if form.plain:
            return more
        kind, real = SET_FORMS.kind_of(form), world.stored_per_class
        pictures = _counted(world.images_per_class, "picture")
        remark = (
            f"Form {kind}: networks see {pictures} of each class, stored in the bytes of {_counted(real, 'image')} at "
            "most; as many real images of each class are the controls."
        )
        return more | {"form": {"kind": kind, **plain(form)}, "remarks": [*remarks, remark]}

    @property
    def folders(self) -> Sequence[Path]:
        """The set's folder alone."""
        return [self.folder]


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
