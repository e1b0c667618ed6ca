"""The settings of trajectory matching with every axis open: MTT, FTD, TESLA and DATM are points of it."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from distributed_dd.family import choice, require, setting
from distributed_dd.learning.augment import AUGMENTATIONS, Augmentation, Siamese
from distributed_dd.learning.batches import student_batches
from distributed_dd.learning.chance import generator
from distributed_dd.learning.update_rules import SGD, UpdateRule, check_learns
from distributed_dd.methods.trajectory_matching.compared import COMPARED, COUNTED, All, Compared, Counted, Last
from distributed_dd.methods.trajectory_matching.draws import Draw, expert_in_turn
from distributed_dd.methods.trajectory_matching.expert import Experts
from distributed_dd.methods.trajectory_matching.labels import LABELS, ExpertEnsemble, Labels, TargetNetwork
from distributed_dd.methods.trajectory_matching.segments import SEGMENTS, Segments, Window
from distributed_dd.methods.trajectory_matching.starts import STARTS, CorrectlyPredicted, Start
from distributed_dd.outer.gate import Gated
from distributed_dd.unroll import UNROLLS, Replayed, Unroll


@dataclass(frozen=True, kw_only=True)
class TrajectorySettings(Gated):
    """What can be set, and what follows from it alone."""

    image_optimizer: SGD = setting("optimiser of the images", default_factory=lambda: SGD(100.0, 0.5))
    rate_optimizer: SGD = setting("optimiser of the student learning rate", default_factory=lambda: SGD(1e-5, 0.5))
    segments: Segments = choice(SEGMENTS, "window of start epochs", Window(max_start_epoch=10))
    label_optimizer: SGD = setting("optimiser of the label logits, where they are learned", SGD(2.0, 0.9))
    name: str = setting("the method's name in reports", "datm")
    student_steps: int = setting("N: SGD steps of the student per outer step", 80, at_least=1, at_most=100_000)
    expert_epochs: float = setting("M: expert epochs from start to target", 2.0, at_least=1e-6)
    batch_size: int = setting("synthetic images per student step (all, if there are fewer)", 1000, at_least=1)
    student_learning_rate: float = setting("the student's learning rate at the start", 0.01, above=0)
    student_learning_rate_min: float = setting("floor of the learned rate; reaching it is reported", 1e-6, above=0)
    segments_per_outer_step: int = setting(
        "segments whose gradients an outer step averages", 1, at_least=1, at_most=1_000_000
    )
    gate: float | None = setting("leave a segment out if its matching loss is above (null: never)", 1.0)
    ema_decay: float | None = setting(
        "average the set over outer steps with this decay (null: no)", None, above=0, below=1
    )
    precision: Literal["float32", "bf16"] = setting("arithmetic of the student", "float32")
    start: Start = choice(STARTS, "starting images", CorrectlyPredicted())
    labels: Labels = choice(LABELS, "starting labels", ExpertEnsemble())
    augment: Augmentation = choice(AUGMENTATIONS, "augmentation in every student step", Siamese())
    unroll: Unroll = choice(UNROLLS, "way of differentiating", Replayed())
    counted: Counted = choice(COUNTED, "parameters that count in the matching loss", All(), added=True)
    compared: Compared = choice(COMPARED, "student step that is compared with the target", Last(), added=True)
    experts: Experts = setting("expert training", default_factory=Experts, lifted=True)

    num_sets: ClassVar[int] = 5
    """Sets on which networks of the report train, the full data aside."""

    def __post_init__(self) -> None:
        floor = self.student_learning_rate_min
        require(
            self.student_learning_rate >= floor,
            "student_learning_rate",
            f"got {self.student_learning_rate}",
            f"at least {floor}",
        )
        require(
            self.segments_per_outer_step == 1 or not isinstance(self.labels, TargetNetwork),
            "segments_per_outer_step",
            f"labels.kind=target_network labels the set by one target, here are {self.segments_per_outer_step}",
            "1",
        )
        if not (self.labels.learned and self.label_optimizer.learning_rate):  # learned labels alone are a set too
            check_learns(self.image_optimizer, "image_optimizer")
        self._check_window()
        for name, asked in (("start", self.start), ("labels", self.labels)):
            self._check_epoch(f"{name}.epoch", getattr(asked, "epoch", -1))

    def _check_epoch(self, where: str, epoch: int) -> None:
        """Refuse an epoch, counted from the last one where it is negative, that no expert has."""
        last = self.experts.num_epochs
        require(
            -last - 1 <= epoch <= last,
            where,
            f"there is no epoch {epoch} of the {last} of the experts",
            f"{-last - 1} to {last}",
        )

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

    def draw(self, step: int, seed: int, num_experts: int, num_images: int, segment: int = 0) -> Draw:
        """Everything random about one segment of outer step ``step``; each expert comes once per pass."""
        number = step * self.segments_per_outer_step + segment
        rng = generator(seed, "outer step", number)
        start_epoch = self.segments.draw(step, rng)
        batches = student_batches(num_images, self.batch_size, self.student_steps, rng)
        augment = tuple(self.augment.draw(rng, len(batch)) for batch in batches)
        return Draw(expert_in_turn(number, num_experts, seed), start_epoch, batches, augment)

    def smallest_batch(self, num_images: int) -> int:
        """Rows of the smallest batch of a pass through the set."""
        batch = min(self.batch_size, num_images)
        return num_images % batch or batch

    def epochs_used(self) -> tuple[float, ...]:
        """The epochs of an expert that this method reads: starts, targets, and those of starts and labels."""
        starts = self.segments.starts()
        used = {*starts, *(round(start + self.expert_epochs, 6) for start in starts)}
        for asked in (getattr(self.start, "epoch", -1), getattr(self.labels, "epoch", -1), -1):
            used.add(float(asked if asked >= 0 else self.experts.num_epochs + 1 + asked))
        return tuple(sorted(used))
