"""Performance matching as a method: bilevel distillation, through all of a student's steps or a window of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from distributed_dd.evaluation.product import Tensors
from distributed_dd.evaluation.rows import Entry
from distributed_dd.evaluation.words import Words
from distributed_dd.methods.performance_matching.rates import RATE
from distributed_dd.methods.performance_matching.rows import STEPS, own_steps
from distributed_dd.methods.performance_matching.settings import PerformanceSettings
from distributed_dd.methods.performance_matching.steps import PerformanceSteps
from distributed_dd.outer.division import DIRECT_UNROLL, Batch, Division, mixing_layers
from distributed_dd.outer.gate import NO_SKIPS, count_skipped
from distributed_dd.outer.method import Seat
from distributed_dd.outer.scale import Scale, Work
from distributed_dd.outer.set_method import SetMethod, work_of_a_set
from distributed_dd.outer.student import student_of
from distributed_dd.outer.work import FLOAT, num_parameters_of, size
from distributed_dd.outer.world import World

LEAST_RATE = 1e-6
"""Floor of a learned rate."""


@dataclass(frozen=True, kw_only=True)
class PerformanceMatching(PerformanceSettings, SetMethod):
    """Lower the loss on real images of students trained on the set (DD, 2018; BPTT; RaT-BPTT, ICLR 2024)."""

    words: ClassVar[Words] = Words(
        losses={"real_loss": "loss on real images after the student's training"},
        noted={"real_loss": "real loss"},
        rows={STEPS: "the student's steps of the distillation alone, from fresh networks"},
        parameters={
            "method.student_steps": "N",
            "method.window.num_steps": "window",
            "method.student_learning_rate": "student lr",
            "method.image_optimizer.learning_rate": "lr images",
        },
    )
    no_facts: ClassVar[Mapping[str, Any]] = NO_SKIPS

    def floors(self) -> dict[str, float]:
        """Of one rate that is learned; rates of steps are positive as they are."""
        return {RATE: LEAST_RATE} if RATE in self.optimizers() else {}

    def starting_set(self, world: World) -> Tensors:
        """Images that `start` chooses, labels and rates as they are set."""
        images, classes = self.start.images(world)
        labels = self.labels.start(classes, world.num_classes)
        rates = self.rates.starting(self.student_learning_rate, self.student_steps)
        return {"images": images, "labels": labels, "classes": classes, **rates}

    def training_labels(self, world: World) -> Any:
        """As those of the set at the start."""
        return self.labels.start(world.real.train.targets, world.num_classes)

    def check(self, world: World) -> None:
        """Refuse what the student cannot train on, and a network that is no function of its parameters."""
        self.batches.check(world.images_per_class)
        student_of(self, world)

    def notes(self, world: World) -> list[str]:
        """Real images that do not fill a batch."""
        num_real = len(world.real.pixels.targets)
        if num_real >= self.batch_size:
            return []
        return [f"note: method.batch_size={self.batch_size}: outer steps take all {num_real} real images"]

    def steps(self, world: World, seat: Seat) -> PerformanceSteps:
        """Students, and what their ends are worth."""
        return PerformanceSteps(self, world, seat)

    def turn(self, world: World) -> int:
        """All of them, where students carry on; each on its own otherwise."""
        return world.num_outer_steps if self.source.carries_on else 1

    def measuring(self) -> "PerformanceMatching":
        """Behind a closed gate no unroll goes back: the loss costs a third."""
        return self if self.source.carries_on else replace(self, gate=1e-30)

    def ready_rows(self, entry: Entry) -> list[dict[str, Any]]:
        """What the set does in the training that it was made for."""
        return own_steps(self, entry)

    def division(self, world: World) -> Division:
        """Students of an outer step; rows of a student batch and real images, unless the unroll keeps one graph."""
        smallest = self.batches.smallest(world.num_images, world.num_classes)
        return Division(
            num_rows=world.num_images,
            batches=(
                Batch("method.batches", "student batch", smallest),
                Batch("method.batch_size", "real batch", self.batch_size),
            ),
            num_segments=self.students_per_outer_step,
            segments_field="method.students_per_outer_step",
            obstacles=() if self.unroll.shardable else (DIRECT_UNROLL,),
            mixing=mixing_layers(student_of(self, world).network, "network", "split=segments"),
        )

    def work(self, scale: Scale) -> Work:
        """A student's steps forward (3 passes each), those of the window there and back (9 more), real images (3)."""
        facts = scale.facts
        num_images = scale.images_per_class * facts.num_classes
        batch = min(getattr(self.batches, "size", num_images), num_images)
        made, back = self.window.mean(self.student_steps)
        num_real = min(self.batch_size, facts.num_train)
        passes = self.students_per_outer_step * (batch * (3 * made + 9 * back) + 3 * num_real)
        work = work_of_a_set(scale, passes)
        num_parameters = num_parameters_of(scale.network, facts)
        stored = size(FLOAT * num_parameters * self.rule.num_kept * back)
        lines = [*work.lines, f"          {stored} for the student on its way"]
        if kept := self.source.vectors_kept(self.rule.num_slots):
            lines.append(f"          {size(FLOAT * num_parameters * kept)} for the pool, there and in a checkpoint")
        return replace(work, lines=lines)

    def count(self, step: int, metrics: dict[str, float], facts: dict[str, Any]) -> Iterator[str]:
        """Steps that changed nothing."""
        metrics.pop("floored", None)
        yield from count_skipped(step, metrics, facts, "real_loss", "loss on real images")
