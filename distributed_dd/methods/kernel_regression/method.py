"""Kernel inducing points (KIP; Nguyen et al., ICLR 2021 and NeurIPS 2021)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from distributed_dd.evaluation.product import Tensors
from distributed_dd.evaluation.rows import Entry
from distributed_dd.evaluation.scoring import Candidate
from distributed_dd.evaluation.words import Words
from distributed_dd.family import choice, require, setting
from distributed_dd.learning.augment import AUGMENTATIONS, Augmentation, Identity
from distributed_dd.learning.classes import centred_targets
from distributed_dd.learning.kernels import Kernel
from distributed_dd.learning.kernels.fully_connected import FullyConnected
from distributed_dd.learning.kernels.ridge import memory_needed
from distributed_dd.learning.networks import Network
from distributed_dd.learning.update_rules import UPDATE_RULES, Adam, UpdateRule, check_learns
from distributed_dd.methods.kernel_regression.cost import work_of
from distributed_dd.methods.kernel_regression.limits import CHOICES, OfNetwork, limit_of
from distributed_dd.methods.kernel_regression.pairs import Pairs
from distributed_dd.methods.kernel_regression.rows import TITLES, Regression, rows_of_networks, rows_of_regression
from distributed_dd.methods.kernel_regression.steps import KernelSteps
from distributed_dd.outer.division import Batch, Division
from distributed_dd.outer.footprint import memory_for_a_process
from distributed_dd.outer.method import Seat
from distributed_dd.outer.scale import Scale, Work
from distributed_dd.outer.set_method import SetMethod
from distributed_dd.outer.starting import PLAIN_STARTS, PlainStart, RealImages, hard_labelled
from distributed_dd.outer.work import size
from distributed_dd.outer.world import World


@dataclass(frozen=True, kw_only=True)
class KernelRegression(SetMethod):
    """Let a kernel regression on the set predict real images (KIP, ICLR 2021; NeurIPS 2021)."""

    name: str = setting("the method's name in reports", "kip")
    kernel: Kernel | OfNetwork = choice(
        CHOICES, "the infinitely wide network whose tangent kernel it is", FullyConnected()
    )
    image_optimizer: UpdateRule = choice(UPDATE_RULES, "update rule of the images", Adam(0.04))
    learned_targets: bool = setting(
        "learn what the regression predicts for each image too: better kernels, often worse networks", False
    )
    target_optimizer: UpdateRule = choice(UPDATE_RULES, "update rule of learned targets", Adam(0.04))
    batch_size: int = setting(
        "real images in an outer step, equally many of each class (all of a class that has fewer)", 5000, at_least=1
    )
    ridge: float = setting("added to the kernel's diagonal, as a share of its mean", 1e-6, above=0)
    start: PlainStart = choice(PLAIN_STARTS, "starting images", RealImages())
    augment: Augmentation = choice(AUGMENTATIONS, "of the real images, each by itself", Identity())
    compile: bool = setting("compile the kernel; worth it from some hundred outer steps on", False)
    block_megabytes: int = setting(
        "memory of a block of pairs, gradient included; blocks follow each other", 256, at_least=1
    )
    regression_rows: bool = setting(
        "report the regression itself on all test images beside networks; the kernel of all test images takes time",
        True,
    )

    words: ClassVar[Words] = Words(
        losses={"regression_loss": "loss of the kernel regression"},
        noted={"regression_loss": "loss", "regression_accuracy": "accuracy"},
        series={"regression_accuracy": "accuracy of the kernel regression on the real batch"},
        rows=TITLES,
        columns={"kernel_regression": "kernel regression"},
        parameters={"method.image_optimizer.learning_rate": "lr images"},
    )

    def __post_init__(self) -> None:
        check_learns(self.image_optimizer, "image_optimizer")
        if self.learned_targets:
            check_learns(self.target_optimizer, "target_optimizer")

    def optimizers(self) -> dict[str, UpdateRule]:
        """Of the images, and of targets that are learned."""
        learned: dict[str, UpdateRule] = {"images": self.image_optimizer}
        return learned | ({"targets": self.target_optimizer} if self.learned_targets else {})

    def starting_set(self, world: World) -> Tensors:
        """As `start` says, with hard labels; targets that are learned start from them."""
        tensors = hard_labelled(self.start, world)
        if not self.learned_targets:
            return tensors
        return tensors | {"targets": centred_targets(tensors["classes"], world.num_classes)}

    def training_targets(self, world: World) -> Tensor | None:
        """Those that learned ones start from."""
        return centred_targets(world.real.train.targets, world.num_classes) if self.learned_targets else None

    def check(self, world: World) -> None:
        """Refuse a kernel that does not fit the images, a set whose kernel memory cannot hold, a batch too small."""
        self.kernel_for(world.network).check(world.image_shape)
        needed, free = memory_needed(world.num_images), memory_for_a_process(1)
        require(
            needed <= free,
            "images_per_class",
            f"{world.num_images:,} images: the regression solves a system of that size in float64, which takes "
            f"{size(needed)} of memory, and {size(free)} are free",
            "a smaller set",
        )
        require(
            self.batch_size >= world.num_classes,
            "method.batch_size",
            f"{self.batch_size} real images of {world.num_classes} classes: a class would be missing",
            f"{world.num_classes} or more",
        )
        counts = torch.bincount(world.real.pixels.targets, minlength=world.num_classes)
        require(bool(counts.all()), "data", "a class has no real images to predict", "images of every class")

    def notes(self, world: World) -> list[str]:
        """Classes with fewer real images than their part of a batch; targets that the way of scoring does not use."""
        notes = []
        if self.learned_targets and not world.evaluate.takes_targets:
            notes.append(
                "note: networks are scored on class numbers; with evaluate.protocol=kip they learn the set's targets"
            )
        each = self.batch_size // world.num_classes
        counts = torch.bincount(world.real.pixels.targets, minlength=world.num_classes)
        short = int((counts < each).sum())
        if not short:
            return notes
        return [
            *notes,
            f"note: {short} of {world.num_classes} classes have fewer than {each} real images, their part of "
            f"method.batch_size={self.batch_size} ({int(counts.min())} at least): outer steps take all of them",
        ]

    def steps(self, world: World, seat: Seat) -> KernelSteps:
        """Fresh real images in every outer step, and nothing that is kept between two."""
        return KernelSteps(
            world=world,
            seat=seat,
            pairs=self._pairs(world.network),
            ridge=self.ridge,
            batch_size=self.batch_size,
            augment=self.augment,
        )

    def division(self, world: World) -> Division:
        """Real images, and rows of the set and of its kernel."""
        return Division(
            num_rows=world.num_images, batches=(Batch("images_per_class", "synthetic set", world.num_images),)
        )

    def work(self, scale: Scale) -> Work:
        """Pairs of images, and what their kernels take."""
        return work_of(self.kernel_for(scale.network), self.batch_size, scale)

    def rows(self, entry: Entry) -> list[Candidate]:
        """Also random real images with solved labels, where networks learn targets."""
        return rows_of_networks(entry, self._regression(entry.world))

    def ready_rows(self, entry: Entry) -> list[dict[str, Any]]:
        """The kernel regression itself on the test split."""
        return rows_of_regression(entry, self._regression(entry.world)) if self.regression_rows else []

    def _regression(self, world: World) -> Regression:
        return Regression(self._pairs(world.network), self.ridge, world.num_classes)

    def kernel_for(self, network: Network) -> Kernel:
        """The kernel that is asked for, or that of the network."""
        return limit_of(network) if isinstance(self.kernel, OfNetwork) else self.kernel

    def _pairs(self, network: Network) -> Pairs:
        return Pairs(self.kernel_for(network), self.block_megabytes * 2**20, self.compile)
