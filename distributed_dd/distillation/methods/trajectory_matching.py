"""Trajectory matching with every axis open: MTT, FTD, TESLA and DATM are points of it."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from distributed_dd.distillation.augment import AUGMENTATIONS, Augmentation, Drawn, Siamese
from distributed_dd.distillation.chance import generator
from distributed_dd.distillation.labels import LABELS, ExpertEnsemble, Labels, TargetNetwork
from distributed_dd.distillation.segments import SEGMENTS, Segments
from distributed_dd.distillation.starts import STARTS, CorrectlyPredicted, Start
from distributed_dd.distillation.unroll import UNROLLS, Replayed, Unroll
from distributed_dd.family import choice, require, setting


@dataclass(frozen=True)
class ParameterSGD:
    """SGD settings of one of the three learned things."""

    learning_rate: float = setting("step size")
    momentum: float = setting("momentum", 0.5)


@dataclass(frozen=True)
class Draw:
    """All chance of one outer step."""

    expert: int
    start_epoch: float
    batches: tuple[Tensor, ...]
    augment: tuple[Drawn, ...]


@dataclass(frozen=True)
class TrajectoryMatching:
    """Match segments of expert trajectories (MTT, CVPR 2022; DATM, ICLR 2024)."""

    image_optimizer: ParameterSGD = setting("optimiser of the images")
    rate_optimizer: ParameterSGD = setting("optimiser of the student learning rate")
    segments: Segments = choice(SEGMENTS, "window of start epochs")
    label_optimizer: ParameterSGD = setting(
        "optimiser of the label logits, where they are learned", ParameterSGD(2.0, 0.9)
    )
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

    def __post_init__(self) -> None:
        for name in ("student_steps", "batch_size", "segments_per_outer_step"):
            require(getattr(self, name) >= 1, name, f"got {getattr(self, name)}", "1 or more")
        require(self.expert_epochs > 0, "expert_epochs", f"got {self.expert_epochs:g}", "above 0")
        floor = self.student_learning_rate_min
        require(floor > 0, "student_learning_rate_min", f"got {floor}", "above 0")
        require(
            self.student_learning_rate >= floor,
            "student_learning_rate", f"got {self.student_learning_rate}", f"at least {floor}",
        )  # fmt: skip
        if self.ema_decay is not None:
            require(0 < self.ema_decay < 1, "ema_decay", f"got {self.ema_decay}", "between 0 and 1, or null")

        require(
            self.segments_per_outer_step == 1 or not isinstance(self.labels, TargetNetwork),
            "segments_per_outer_step",
            f"labels.kind=target_network labels the set by one target, here are "
            f"{self.segments_per_outer_step}",
            "1",
        )

    def check(self, num_expert_epochs: int) -> None:
        """Refuse a window that reaches beyond the experts' last epoch."""
        starts = self.segments.starts()
        last = starts[-1] + self.expert_epochs
        require(
            self.expert_epochs <= num_expert_epochs,
            "method.expert_epochs",
            f"{self.expert_epochs:g} is more than the {num_expert_epochs} epochs of the experts",
            f"at most {num_expert_epochs}",
        )
        require(
            last <= num_expert_epochs,
            "method.segments.max_start_epoch",
            f"the last target is epoch {last:g}, but experts train for {num_expert_epochs}",
            f"at most {num_expert_epochs - self.expert_epochs + self.segments.step:g}",
            "lower the window or raise experts.num_epochs",
        )

    def epochs_used(self, num_expert_epochs: int) -> tuple[float, ...]:
        """The epochs of an expert that this method reads: starts, targets, and those of starts and labels."""
        starts = self.segments.starts()
        used = {*starts, *(round(start + self.expert_epochs, 6) for start in starts)}
        for asked in (getattr(self.start, "epoch", -1), getattr(self.labels, "epoch", -1), -1):
            used.add(float(asked if asked >= 0 else num_expert_epochs + 1 + asked))
        return tuple(sorted(used))

    def optimizers(self) -> dict[str, ParameterSGD]:
        """The optimiser of each thing that is learned."""
        learned = {"images": self.image_optimizer, "learning_rate": self.rate_optimizer}
        return learned | ({"labels": self.label_optimizer} if self.labels.learned else {})

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

    def smallest_batch(self, num_images: int) -> int:
        """Rows of the smallest batch of a pass through the set."""
        batch = min(self.batch_size, num_images)
        return num_images % batch or batch

    def _batches(self, num_images: int, rng: torch.Generator) -> tuple[Tensor, ...]:
        per_pass = math.ceil(num_images / self.batch_size)
        batches: list[Tensor] = []
        for _ in range(math.ceil(self.student_steps / per_pass)):
            chunks = torch.randperm(num_images, generator=rng).split(self.batch_size)
            batches += reversed(chunks)  # taken from the end: the short remainder comes first
        return tuple(batches[: self.student_steps])

    def accepts(self, loss: float) -> bool:
        """Whether a segment with this matching loss may change the set."""
        return self.gate is None or loss <= self.gate
