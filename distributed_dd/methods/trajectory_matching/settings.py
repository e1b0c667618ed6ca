"""Trajectory matching with every axis open: MTT, FTD, TESLA and DATM are points of it."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from distributed_dd.data import Facts
from distributed_dd.evaluation import importing
from distributed_dd.evaluation.product import Tensors
from distributed_dd.evaluation.rows import Entry, candidates
from distributed_dd.evaluation.scoring import Candidate, row
from distributed_dd.evaluation.words import SweepAxis, Words
from distributed_dd.family import choice, require, setting
from distributed_dd.learning.augment import AUGMENTATIONS, Augmentation, Drawn, Siamese
from distributed_dd.learning.chance import generator
from distributed_dd.learning.networks import NETWORKS, Network, initialised
from distributed_dd.learning.update_rules import SGD, UpdateRule
from distributed_dd.methods.trajectory_matching.estimate import work_of
from distributed_dd.methods.trajectory_matching.expert import Experts
from distributed_dd.methods.trajectory_matching.labels import LABELS, ExpertEnsemble, Labels, TargetNetwork
from distributed_dd.methods.trajectory_matching.prelude import ExpertsPrelude
from distributed_dd.methods.trajectory_matching.segments import SEGMENTS, Segments
from distributed_dd.methods.trajectory_matching.starts import STARTS, CorrectlyPredicted, Start
from distributed_dd.methods.trajectory_matching.steps import TrajectorySteps, student_of
from distributed_dd.methods.trajectory_matching.window import MatchingWindow
from distributed_dd.outer.division import Batch, Division, Obstacle, mixing_layers
from distributed_dd.outer.method import Seat
from distributed_dd.outer.ports import Progress
from distributed_dd.outer.prelude import Prelude
from distributed_dd.outer.scale import Scale, Work
from distributed_dd.outer.set_method import SetMethod
from distributed_dd.outer.world import World
from distributed_dd.unroll import UNROLLS, Replayed, Unroll

SKIPPED_IN_A_ROW = 25


@dataclass(frozen=True)
class Draw:
    """All chance of one outer step."""

    expert: int
    start_epoch: float
    batches: tuple[Tensor, ...]
    augment: tuple[Drawn, ...]


@dataclass(frozen=True)
class TrajectoryMatching(SetMethod):
    """Match segments of expert trajectories (MTT, CVPR 2022; DATM, ICLR 2024)."""

    image_optimizer: SGD = setting("optimiser of the images")
    rate_optimizer: SGD = setting("optimiser of the student learning rate")
    segments: Segments = choice(SEGMENTS, "window of start epochs")
    label_optimizer: SGD = setting("optimiser of the label logits, where they are learned", SGD(2.0, 0.9))
    name: str = setting("the method's name in reports", "datm")
    student_steps: int = setting("N: SGD steps of the student per outer step", 80)
    expert_epochs: float = setting("M: expert epochs from start to target", 2.0)
    batch_size: int = setting("synthetic images per student step (all, if there are fewer)", 1000)
    student_learning_rate: float = setting("the student's learning rate at the start", 0.01)
    student_learning_rate_min: float = setting("floor of the learned rate; reaching it is reported", 1e-6)
    segments_per_outer_step: int = setting("segments whose gradients an outer step averages", 1)
    gate: float | None = setting("leave a segment out if its matching loss is above (null: never)", 1.0)
    ema_decay: float | None = setting("average the set over outer steps with this decay (null: no)", None)
    precision: Literal["float32", "bf16"] = setting("arithmetic of the student", "float32")
    start: Start = choice(STARTS, "starting images", CorrectlyPredicted())
    labels: Labels = choice(LABELS, "starting labels", ExpertEnsemble())
    augment: Augmentation = choice(AUGMENTATIONS, "augmentation in every student step", Siamese())
    unroll: Unroll = choice(UNROLLS, "way of differentiating", Replayed())
    experts: Experts = setting("expert training", default_factory=Experts, lifted=True)

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
    no_facts: ClassVar[Mapping[str, Any]] = MappingProxyType({"skipped": 0, "skipped_in_a_row": 0, "floored": 0})
    carries: ClassVar[tuple[str, ...]] = ()
    dimensions: ClassVar[Mapping[str, type]] = MappingProxyType({"matching_window": MatchingWindow})
    num_sets: ClassVar[int] = 5

    def __post_init__(self) -> None:
        for name in ("student_steps", "batch_size", "segments_per_outer_step"):
            require(getattr(self, name) >= 1, name, f"got {getattr(self, name)}", "1 or more")
        require(self.expert_epochs > 0, "expert_epochs", f"got {self.expert_epochs:g}", "above 0")
        floor = self.student_learning_rate_min
        require(floor > 0, "student_learning_rate_min", f"got {floor}", "above 0")
        require(
            self.student_learning_rate >= floor,
            "student_learning_rate",
            f"got {self.student_learning_rate}",
            f"at least {floor}",
        )
        if self.ema_decay is not None:
            require(0 < self.ema_decay < 1, "ema_decay", f"got {self.ema_decay}", "between 0 and 1, or null")
        require(
            self.segments_per_outer_step == 1 or not isinstance(self.labels, TargetNetwork),
            "segments_per_outer_step",
            f"labels.kind=target_network labels the set by one target, here are {self.segments_per_outer_step}",
            "1",
        )
        self._check_window()

    def _check_window(self) -> None:
        """Refuse a window that reaches beyond the experts' last epoch."""
        last, num_epochs = self.segments.starts()[-1] + self.expert_epochs, self.experts.num_epochs
        require(
            self.expert_epochs <= num_epochs,
            "expert_epochs",
            f"{self.expert_epochs:g} is more than the {num_epochs} epochs of the experts",
            f"at most {num_epochs}",
        )
        require(
            last <= num_epochs,
            "segments.max_start_epoch",
            f"the last target is epoch {last:g}, but experts train for {num_epochs}",
            f"at most {num_epochs - self.expert_epochs + self.segments.step:g}",
            "lower the window or raise experts.num_epochs",
        )

    def optimizers(self) -> dict[str, UpdateRule]:
        """The optimiser of each thing that is learned."""
        learned: dict[str, UpdateRule] = {"images": self.image_optimizer, "learning_rate": self.rate_optimizer}
        return learned | ({"labels": self.label_optimizer} if self.labels.learned else {})

    def floors(self) -> dict[str, float]:
        """Of the student learning rate."""
        return {"learning_rate": self.student_learning_rate_min}

    def steps(self, world: World, seat: Seat) -> TrajectorySteps:
        """Segments of trajectories in the store that ``world`` carries."""
        return TrajectorySteps(self, world, seat, student_of(self, world))

    def draw(self, step: int, seed: int, num_experts: int, num_images: int, segment: int = 0) -> Draw:
        """Everything random about one segment of outer step ``step``; each expert comes once per pass."""
        number = step * self.segments_per_outer_step + segment
        number_of_pass, place = divmod(number, num_experts)
        order = torch.randperm(num_experts, generator=generator(seed, "expert order", number_of_pass))
        rng = generator(seed, "outer step", number)
        start_epoch = self.segments.draw(step, rng)
        batches = self._batches(num_images, rng)
        augment = tuple(self.augment.draw(rng, len(batch)) for batch in batches)
        return Draw(int(order[place]), start_epoch, batches, augment)

    def _batches(self, num_images: int, rng: torch.Generator) -> tuple[Tensor, ...]:
        per_pass = math.ceil(num_images / self.batch_size)
        batches: list[Tensor] = []
        for _ in range(math.ceil(self.student_steps / per_pass)):
            chunks = torch.randperm(num_images, generator=rng).split(self.batch_size)
            batches += reversed(chunks)  # taken from the end: the short remainder comes first
        return tuple(batches[: self.student_steps])

    def smallest_batch(self, num_images: int) -> int:
        """Rows of the smallest batch of a pass through the set."""
        batch = min(self.batch_size, num_images)
        return num_images % batch or batch

    def accepts(self, loss: float) -> bool:
        """Whether a segment with this matching loss may change the set."""
        return self.gate is None or loss <= self.gate

    def epochs_used(self) -> tuple[float, ...]:
        """The epochs of an expert that this method reads: starts, targets, and those of starts and labels."""
        starts = self.segments.starts()
        used = {*starts, *(round(start + self.expert_epochs, 6) for start in starts)}
        for asked in (getattr(self.start, "epoch", -1), getattr(self.labels, "epoch", -1), -1):
            used.add(float(asked if asked >= 0 else self.experts.num_epochs + 1 + asked))
        return tuple(sorted(used))

    def prelude(self, world: World, varied: Collection[str] = ()) -> ExpertsPrelude:
        """The experts, with the epochs that this method reads and those that trials of a sweep may."""
        needed = {*self.epochs_used(), *self._epochs_of_trials(varied)}
        return ExpertsPrelude(self.experts, world, tuple(sorted(needed)))

    def _epochs_of_trials(self, varied: Collection[str]) -> tuple[float, ...]:
        moving = ("method.segments", "method.expert_epochs", "method.start", "method.labels")
        if not any(f"{key}.".startswith(f"{field}.") for key in varied for field in moving):
            return ()
        step = self.segments.step
        return tuple(round(number * step, 6) for number in range(int(self.experts.num_epochs / step + 1e-9) + 1))

    def prelude_found(
        self, world: World, manifest: Mapping[str, Any], place: str, say: Callable[[str], None]
    ) -> Prelude | None:
        """The experts that a set was made with, looked for below ``place``."""
        known = manifest["experts"]
        return None if known is None else ExpertsPrelude.found(self.experts, world, place, known["store"], say)

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
        direct = Obstacle(
            "method.unroll",
            "the direct unroll keeps one graph of the whole batch, which cannot be divided over ranks",
            "kind: replayed, which computes the same gradient; or split=segments with ZeRO stage 0 to 2",
        )
        smallest = Batch("method.batch_size", "student batch", self.smallest_batch(world.num_images))
        student = student_of(self, world).network
        return Division(
            num_rows=world.num_images,
            batches=(smallest,),
            num_segments=self.segments_per_outer_step,
            segments_field="method.segments_per_outer_step",
            obstacles=() if self.unroll.shardable else (direct,),
            mixing=mixing_layers(student, "network", "split=segments"),
        )

    def work(self, scale: Scale) -> Work:
        """Experts on disk, an unroll in memory, both in operations."""
        return work_of(self, scale)

    def count(self, step: int, metrics: dict[str, float], facts: dict[str, Any]) -> Iterator[str]:
        """Steps that changed nothing, and rates at their floor: said once, or hours would look like work."""
        skipped, floored = not metrics["accepted"], metrics.pop("floored")
        facts["skipped"] += skipped
        facts["skipped_in_a_row"] = facts["skipped_in_a_row"] + 1 if skipped else 0
        if facts["skipped_in_a_row"] == SKIPPED_IN_A_ROW:
            yield (
                f"warning: outer step {step}: the last {SKIPPED_IN_A_ROW} changed nothing, the matching loss "
                f"({metrics['matching_loss']:.2f}) is above method.gate; lower method.student_learning_rate "
                "or raise the gate"
            )
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
