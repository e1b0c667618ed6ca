"""Trajectory matching as a method: what it needs beforehand, what its ranks do, and what people see of it."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch

from distributed_dd.data import Facts
from distributed_dd.evaluation import importing
from distributed_dd.evaluation.product import Tensors
from distributed_dd.evaluation.rows import Entry, candidates
from distributed_dd.evaluation.scoring import Candidate, row
from distributed_dd.evaluation.words import SweepAxis, Words
from distributed_dd.family import require
from distributed_dd.learning.chance import generator
from distributed_dd.learning.networks import NETWORKS, Network, initialised
from distributed_dd.methods.trajectory_matching.estimate import work_of
from distributed_dd.methods.trajectory_matching.first_settings import first_settings
from distributed_dd.methods.trajectory_matching.labels import TargetNetwork
from distributed_dd.methods.trajectory_matching.prelude import ExpertsPrelude
from distributed_dd.methods.trajectory_matching.reach import notes_of
from distributed_dd.methods.trajectory_matching.settings import TrajectorySettings
from distributed_dd.methods.trajectory_matching.steps import TrajectorySteps
from distributed_dd.methods.trajectory_matching.views import early
from distributed_dd.methods.trajectory_matching.window import MatchingWindow
from distributed_dd.outer.division import DIRECT_UNROLL, Batch, Division, mixing_layers
from distributed_dd.outer.gate import NO_SKIPS, count_skipped
from distributed_dd.outer.method import Seat
from distributed_dd.outer.ports import Progress
from distributed_dd.outer.prelude import Prelude
from distributed_dd.outer.scale import Scale, Work
from distributed_dd.outer.set_method import SetMethod
from distributed_dd.outer.student import student_of
from distributed_dd.outer.world import World
from distributed_dd.records import require_keys


@dataclass(frozen=True, kw_only=True)
class TrajectoryMatching(TrajectorySettings, SetMethod):
    """Match segments of expert trajectories (MTT, CVPR 2022; DATM, ICLR 2024)."""

    words: ClassVar[Words] = Words(
        losses={"matching_loss": "matching loss", "student_learning_rate": "student learning rate"},
        noted={"matching_loss": "matching loss"},
        series={"start_epoch": "start epoch of the matched segment"},
        parameters={
            "method.segments.min_start_epoch": "T-",
            "method.segments.max_start_epoch": "T+",
            "method.segments.initial_max_start_epoch": "T",
            "method.expert_epochs": "M",
            "method.student_steps": "N",
            "method.image_optimizer.learning_rate": "lr images",
            "method.label_optimizer.learning_rate": "lr labels",
            "method.rate_optimizer.learning_rate": "lr rate",
            "method.student_learning_rate": "student lr",
        },
        compared=("method.segments.min_start_epoch", "method.segments.max_start_epoch"),
    )
    no_facts: ClassVar[Mapping[str, Any]] = MappingProxyType({**NO_SKIPS, "floored": 0})
    carries: ClassVar[tuple[str, ...]] = ()
    dimensions: ClassVar[Mapping[str, type]] = MappingProxyType({"matching_window": MatchingWindow})

    def floors(self) -> dict[str, float]:
        """Of the student learning rate."""
        return {"learning_rate": self.student_learning_rate_min}

    def steps(self, world: World, seat: Seat) -> TrajectorySteps:
        """Segments of trajectories in the store that ``world`` carries."""
        return TrajectorySteps(self, world, seat, student_of(self, world))

    def prelude(self, world: World, varied: Collection[str] = ()) -> ExpertsPrelude:
        """The experts, with the epochs that this method reads and those that trials of a sweep may."""
        needed = {*self.epochs_used(), *self._epochs_of_trials(varied), *self._epochs_that_rank(world, varied)}
        return ExpertsPrelude(self.experts, world, tuple(sorted(needed)))

    def _epochs_of_trials(self, varied: Collection[str]) -> tuple[float, ...]:
        moving = ("method.segments", "method.expert_epochs", "method.start", "method.labels")
        if not any(f"{key}.".startswith(f"{field}.") for key in varied for field in moving):
            return ()
        step = self.segments.step
        return tuple(round(number * step, 6) for number in range(int(self.experts.num_epochs / step + 1e-9) + 1))

    def _epochs_that_rank(self, world: World, varied: Collection[str]) -> tuple[float, ...]:
        """The epoch at which experts rank real images, where rows are chosen so or a trial may choose them so."""
        ranked = world.frozen.images.ranked or any(f"{key}.".startswith("set.") for key in varied)
        return (float(early(self.experts.num_epochs)),) if ranked else ()

    def check(self, world: World) -> None:
        """Refuse labels that follow the target network beside rows that never change."""
        require(
            not (world.frozen.share and isinstance(self.labels, TargetNetwork)),
            "set.frozen.share",
            "frozen rows keep their labels, and method.labels.kind=target_network labels all rows anew in every step",
            "0",
            "other labels, such as method.labels.kind=hard",
        )

    def prelude_found(
        self, world: World, manifest: Mapping[str, Any], place: str, say: Callable[[str], None]
    ) -> Prelude | None:
        """The experts that a set was made with, looked for below ``place``."""
        known = manifest.get("experts")
        if known is None:
            return None
        require_keys({"experts": known}, {"experts": dict}, "manifest.json")
        return ExpertsPrelude.in_store(self.experts, world, place, str(known.get("store")), say)

    def imported(
        self,
        source: Path,
        to: Path | None,
        output: Path,
        network: Network,
        facts: Callable[[], Facts],
        progress: Progress,
    ) -> str | None:
        """Expert buffers as a store."""
        buffers = importing.buffers_in(source) if source.exists() else []
        if not buffers:
            return None
        known = facts()
        layers = initialised(network, known.image_shape, known.num_classes, generator(0, "layout"))
        place = to or self.experts.storage or output / "experts"
        return str(importing.import_experts(buffers, network, layers, place, progress).folder)

    @property
    def shared_fields(self) -> tuple[str, ...]:
        """What experts depend on."""
        return "experts", "network", "preprocessing"

    def starting_set(self, world: World) -> Tensors:
        """Images that `start` chooses, labels as `labels` makes them, the student learning rate."""
        train, jury = world.real.train, world.shared.jury
        index = jury.start(self.start, world.images_per_class, generator(world.seed, "starting images"))
        return {
            "images": train.images[index],
            "labels": jury.labels(self.labels)[index],
            "classes": train.targets[index],
            "learning_rate": torch.tensor(self.student_learning_rate, dtype=torch.float32),
        }

    def training_labels(self, world: World) -> torch.Tensor:
        """As `labels` makes them, of which the experts are asked."""
        return world.shared.jury.labels(self.labels)

    def with_fewer(self, num_experts: int) -> "TrajectoryMatching":
        """The first of the experts: they lie in the same store."""
        fewer = min(num_experts, self.experts.num_experts)
        return replace(self, experts=replace(self.experts, num_experts=fewer))

    @classmethod
    def begun_from(cls, values: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
        """With epochs and batches for as many images, and an open gate."""
        return first_settings(values, facts)

    def measuring(self) -> "TrajectoryMatching":
        """Behind a closed gate no unroll goes back: the loss costs a third."""
        return replace(self, gate=0.0)

    def rows(self, entry: Entry) -> list[Candidate]:
        """Also random real images with the experts' soft labels."""
        shared = entry.world.shared
        return candidates(entry, None if shared is None else shared.jury.soft_labels(self.labels))

    def ready_rows(self, entry: Entry) -> list[dict[str, Any]]:
        """The experts themselves, on the test split."""
        world = entry.world
        accuracies = world.shared.jury.accuracies(world.real.test)
        return [row("expert", NETWORKS.kind_of(world.network), "hard", accuracies)]

    def division(self, world: World) -> Division:
        """Segments of an outer step; rows of a student batch, unless the unroll keeps one graph of it."""
        smallest = Batch("method.batch_size", "student batch", self.smallest_batch(world.num_images))
        student = student_of(self, world).network
        return Division(
            num_rows=world.num_images,
            batches=(smallest,),
            num_segments=self.segments_per_outer_step,
            segments_field="method.segments_per_outer_step",
            obstacles=() if self.unroll.shardable else (DIRECT_UNROLL,),
            mixing=mixing_layers(student, "network", "split=segments"),
        )

    def work(self, scale: Scale) -> Work:
        """Experts on disk, an unroll in memory, both in operations."""
        return work_of(self, scale)

    def notes(self, world: World) -> list[str]:
        """That the student would go further than its expert."""
        return [*super().notes(world), *notes_of(self, len(world.real.splits.train))]

    def count(self, step: int, metrics: dict[str, float], facts: dict[str, Any]) -> Iterator[str]:
        """Steps that changed nothing, and rates at their floor: said once, or hours would look like work."""
        floored = metrics.pop("floored")
        yield from count_skipped(step, metrics, facts, "matching_loss", "matching loss")
        if floored and not facts["floored"]:
            yield (
                f"warning: outer step {step}: the student learning rate fell to its floor "
                f"{metrics['student_learning_rate']:g}; lower method.rate_optimizer.learning_rate"
            )
        facts["floored"] += bool(floored)

    def sweep_axis(self) -> SweepAxis:
        """Where the matching window lies."""
        return SweepAxis("start epochs of the matching window", "window", "start epochs")

    def on_axis(self, num_outer_steps: int) -> tuple[float, float]:
        """First and last start epoch that could be matched within so many outer steps."""
        return self.segments.reached(max(0, num_outer_steps - 1))

    def sweep_lines(self, varied: Collection[str]) -> list[str]:
        """How far windows may reach."""
        if "method.segments" not in varied:
            return []
        last = self.experts.num_epochs - self.expert_epochs
        return [f"          windows of start epochs 0 to {last:g} at most"]
