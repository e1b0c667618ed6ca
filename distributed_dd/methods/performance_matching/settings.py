"""The settings of performance matching: DD, BPTT and RaT-BPTT are points of it."""

from dataclasses import dataclass
from typing import Literal

from distributed_dd.family import choice, require, setting
from distributed_dd.learning.augment import AUGMENTATIONS, Augmentation, Identity
from distributed_dd.learning.clipping import CLIPS, Clip, NoClip
from distributed_dd.learning.update_rules import UPDATE_RULES, Adam, UpdateRule, check_learns
from distributed_dd.methods.performance_matching.batches import BATCHES, Batches, Shuffled
from distributed_dd.methods.performance_matching.labels import LABELS, Hard, Labels
from distributed_dd.methods.performance_matching.rates import RATES, Each, Fixed, Rates
from distributed_dd.methods.performance_matching.students import SOURCES, Fresh, Pool, Source
from distributed_dd.methods.performance_matching.windows import WINDOWS, WholeWindow, Window
from distributed_dd.outer.gate import Gated
from distributed_dd.outer.starting import PLAIN_STARTS, PlainStart, RealImages
from distributed_dd.unroll import STUDENT_RULES, UNROLLS, PlainSGD, Replayed, StudentRule, Unroll


@dataclass(frozen=True, kw_only=True)
class PerformanceSettings(Gated):
    """What can be set, and what follows from it alone."""

    name: str = setting("the method's name in reports", "bptt")
    image_optimizer: UpdateRule = choice(UPDATE_RULES, "update rule of the images", Adam(0.01))
    final_rate: float = setting(
        "share of all learning rates that is left at the end of a cosine over all outer steps (1: they stay)",
        1.0,
        at_most=1,
    )
    student_steps: int = setting("N: steps of the student per outer step, at most", 100, at_least=1, at_most=100_000)
    student_learning_rate: float = setting("the student's learning rate at the start", 0.01, above=0)
    rates: Rates = choice(RATES, "the student's learning rate: fixed, learned, or learned for each step", Fixed())
    rule: StudentRule = choice(STUDENT_RULES, "update rule of the student", PlainSGD())
    window: Window = choice(WINDOWS, "which student steps are differentiated", WholeWindow())
    source: Source = choice(SOURCES, "where students begin", Fresh())
    students_per_outer_step: int = setting(
        "students whose gradients an outer step averages", 1, at_least=1, at_most=1_000_000
    )
    batches: Batches = choice(BATCHES, "rows of the set that a student step trains on", Shuffled())
    batch_size: int = setting("real images of the loss at the end (all, where there are fewer)", 1024, at_least=1)
    gate: float | None = setting("leave a student out if its loss on real images is above (null: never)", None, above=0)
    labels: Labels = choice(LABELS, "labels of the set", Hard())
    ema_decay: float | None = setting(
        "average the set over outer steps with this decay (null: no)", None, above=0, below=1
    )
    precision: Literal["float32", "bf16"] = setting("arithmetic of the student", "float32")
    start: PlainStart = choice(PLAIN_STARTS, "starting images", RealImages())
    augment: Augmentation = choice(AUGMENTATIONS, "augmentation of the set in every student step", Identity())
    augment_real: Augmentation = choice(AUGMENTATIONS, "augmentation of the real images", Identity())
    unroll: Unroll = choice(UNROLLS, "way of differentiating", Replayed())
    rows_at_once: int = setting("real images that pass a network together: memory, not results", 512, at_least=1)
    clip: Clip = choice(CLIPS, "bound on the norm of the images' gradient", NoClip(), added=True)

    def __post_init__(self) -> None:
        if self.labels.rule is None:
            check_learns(self.image_optimizer, "image_optimizer")
        self.window.check(self.student_steps)
        require(
            self.unroll.exact,
            "unroll",
            "kind: detached is a surrogate for matching losses",
            "replayed, or direct",
        )
        pool = self.source if isinstance(self.source, Pool) else None
        require(
            pool is None or not isinstance(self.rates, Each),
            "rates",
            "kind: each, but students of a pool come back at any age: their steps have no numbers",
            "fixed, one; or source.kind=fresh",
        )
        require(
            pool is None or self.students_per_outer_step <= pool.num_networks,
            "students_per_outer_step",
            f"{self.students_per_outer_step} of a pool of {pool.num_networks if pool else 0}",
            "at most source.num_networks",
        )

    def optimizers(self) -> dict[str, UpdateRule]:
        """The optimiser of each thing that is learned."""
        images = self.clip.applied_to(self.image_optimizer)
        learned: dict[str, UpdateRule] = {"images": images, **self.rates.optimizers()}
        return learned | ({} if self.labels.rule is None else {"labels": self.labels.rule})
