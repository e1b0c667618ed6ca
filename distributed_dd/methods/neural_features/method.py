"""Regression on neural features: FrePo (Zhou et al., NeurIPS 2022), and with fresh networks RFAD (same year)."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from distributed_dd.errors import ConfigError
from distributed_dd.evaluation.product import Tensors
from distributed_dd.evaluation.words import Words
from distributed_dd.family import choice, require, setting
from distributed_dd.learning.batches import endless_batch
from distributed_dd.learning.chance import generator
from distributed_dd.learning.flat import refuse_noise
from distributed_dd.learning.kernels.ridge import memory_needed
from distributed_dd.learning.networks import NETWORKS, Network, initialised
from distributed_dd.learning.networks.blocks import feature_layer
from distributed_dd.learning.schedules import Cosine, Moment
from distributed_dd.learning.update_rules import LAMB, UPDATE_RULES, UpdateRule, check_learns
from distributed_dd.methods.neural_features.features import Architecture
from distributed_dd.methods.neural_features.pools import POOLS, Pool, Trained
from distributed_dd.methods.neural_features.regression import (
    Regression,
    label_margin,
    squared_error,
    starting_targets,
)
from distributed_dd.outer.by_class import resident
from distributed_dd.outer.division import Batch, Division
from distributed_dd.outer.footprint import memory_for_a_process
from distributed_dd.outer.learner import Held, Learner
from distributed_dd.outer.method import Found, Seat, Steps
from distributed_dd.outer.scale import Scale, Work
from distributed_dd.outer.set_method import SetMethod, work_of_a_set
from distributed_dd.outer.starting import PLAIN_STARTS, PlainStart, RealImages, hard_labelled
from distributed_dd.outer.statistic import Block, statistic_gradients
from distributed_dd.outer.work import FLOAT, forward_flops_of, size
from distributed_dd.outer.world import World
from distributed_dd.unroll import span


@dataclass(frozen=True, kw_only=True)
class NeuralFeatures(SetMethod):
    """Predict real images by a regression on neural features of the set (FrePo, NeurIPS 2022; RFAD, NeurIPS 2022)."""

    name: str = setting("the method's name in reports", "frepo")
    image_optimizer: UpdateRule = choice(UPDATE_RULES, "update rule of the images", LAMB(3e-4))
    target_optimizer: UpdateRule = choice(UPDATE_RULES, "update rule of the targets of the regression", LAMB(3e-4))
    final_rate: float = setting(
        "share of both learning rates that is left at the end of a cosine over all outer steps", 0.1, at_most=1
    )
    batch_size: int = setting("real images per outer step, of any class (all, where there are fewer)", 1024, at_least=1)
    pool: Pool = choice(POOLS, "whose features: a network of a pool that learns from the set, or fresh ones", Trained())
    network: Network | None = choice(NETWORKS, "architecture of the pool (null: the one that is scored)", None)
    flip: bool = setting("the regression also has every synthetic image mirrored, with the same targets", False)
    ridge: float = setting("added to the kernel's diagonal, as a share of its mean", 1e-6, above=0)
    kernel_scale: float = setting("of the kernel Z Z^T / F of features Z (counts beside an offset)", 1.0, above=0)
    kernel_offset: float = setting("added to every value of the kernel", 0.0)
    margin: bool = setting("keep the largest target of an image 1 / classes above the second", True)
    start: PlainStart = choice(PLAIN_STARTS, "starting images", RealImages())
    rows_at_once: int = setting("images that pass a network together: memory, not results", 512, at_least=1)
    compile: bool = setting("compile the pool's networks; worth it from a few hundred steps on", False)

    words: ClassVar[Words] = Words(
        losses={"regression_loss": "regression loss (squared error less label margin)"},
        noted={"regression_loss": "loss"},
        series={"squared_error": "squared error of predictions", "label_margin": "margin of the targets"},
        parameters={
            "method.image_optimizer.learning_rate": "lr images",
            "method.target_optimizer.learning_rate": "lr targets",
        },
    )

    def __post_init__(self) -> None:
        check_learns(self.image_optimizer, "image_optimizer")
        check_learns(self.target_optimizer, "target_optimizer")

    @property
    def regression(self) -> Regression:
        """The regression, by its settings."""
        return Regression(ridge=self.ridge, scale=self.kernel_scale, offset=self.kernel_offset)

    @property
    def num_views(self) -> int:
        """Rows of the regression for each synthetic image."""
        return 2 if self.flip else 1

    def optimizers(self) -> dict[str, UpdateRule]:
        """Of images and targets."""
        return {"images": self.image_optimizer, "targets": self.target_optimizer}

    def starting_set(self, world: World) -> Tensors:
        """As `start` says, with hard labels, and the targets of their classes."""
        tensors = hard_labelled(self.start, world)
        return tensors | {"targets": starting_targets(tensors["classes"], world.num_classes)}

    def training_targets(self, world: World) -> Tensor:
        """Those of their classes."""
        return starting_targets(world.real.train.targets, world.num_classes)

    def check(self, world: World) -> None:
        """Refuse a network whose features are not known or noisy, and a set whose kernel memory does not hold."""
        member = self.network or world.network
        layers = initialised(member, world.image_shape, world.num_classes, generator(0, "layout"))
        feature_layer(layers)
        refuse_noise(layers)
        require(world.num_classes > 1, "data", "one class: targets have no margin", "two classes or more")
        rows, room = self.num_views * world.num_images, memory_for_a_process(1)
        if memory_needed(rows) > room:
            raise ConfigError(
                "images_per_class",
                f"the regression's kernel has {rows:,} rows: float64 matrices of {size(memory_needed(rows))}",
                allowed=f"what fits into {size(room)}",
                fix="fewer images per class" + (", or method.flip=false" if self.flip else ""),
            )

    def notes(self, world: World) -> list[str]:
        """A batch that real images do not fill; targets that the way of scoring does not use."""
        found, num_real = [], len(world.real.pixels.targets)
        if num_real < self.batch_size:
            found.append(f"note: method.batch_size={self.batch_size}: outer steps take all {num_real} real images")
        if not world.evaluate.takes_targets:
            found.append(
                "note: networks are scored on class numbers; with evaluate.protocol=frepo they learn the set's targets"
            )
        return found

    def steps(self, world: World, seat: Seat) -> "RegressionSteps":
        """A network of the pool, and its step on the set."""
        return RegressionSteps(self, world, seat)

    def turn(self, world: World) -> int:
        """All of them, where the pool learns from the set; each on its own otherwise."""
        return world.num_outer_steps if self.pool.learns else 1

    def division(self, world: World) -> Division:
        """Rows of the set and real images, whatever their classes; each rank predicts some."""
        return Division(
            num_rows=world.num_images,
            batches=(
                Batch("images_per_class", "synthetic set", world.num_images),
                Batch("method.batch_size", "real batch", self.batch_size),
            ),
        )

    def work(self, scale: Scale) -> Work:
        """Real images forward; the set forward, again and back; steps of the pool. The regression itself is small."""
        facts, member = scale.facts, self.network or scale.network
        num_images, num_real = scale.images_per_class * facts.num_classes, min(self.batch_size, facts.num_train)
        rows, at_once = self.num_views * num_images, self.pool.num_networks_of_a_step()
        layers = initialised(member, facts.image_shape, facts.num_classes, generator(0, "layout"))
        forward, own = forward_flops_of(member, facts), forward_flops_of(scale.network, facts)
        num_parameters = sum(parameter.numel() for parameter in layers.parameters())
        passes = at_once * (num_real + 4 * rows) + self.pool.passes(num_images)
        work = work_of_a_set(scale, passes * forward / own)
        kept = FLOAT * self.pool.floats_kept(num_parameters)
        square = size(memory_needed(rows))
        lines = [
            *work.lines,
            f"          {size(kept)} for the pool, there and in a checkpoint; {square} for the kernel",
        ]
        return replace(work, lines=lines)


class RegressionSteps(Steps):
    """The statistic has a row for each view of a synthetic image: its features, then its targets."""

    def __init__(self, method: NeuralFeatures, world: World, seat: Seat) -> None:
        self.method, self.world, self.seat, self.ranks = method, world, seat, seat.ranks
        architecture = Architecture(method.network or world.network, world, method.compile)
        self.networks = method.pool.networks(architecture, world.seed, seat)
        self.regression = method.regression
        self.images = resident(world.real.train.images, seat)

    def drawn(self, step: int) -> Tensor:
        """The real images of outer step ``step``, by index."""
        num_real = len(self.images)
        return endless_batch(num_real, self.method.batch_size, step, self.world.seed, "real images")

    def gradient(self, step: int, held: Held, prepared: Any = None) -> Found:
        """Of the squared error of predictions less the margin of targets, by images and targets."""
        images, targets = held.images, held.targets
        self.networks.begin(step, images)
        num_rows, num_features = len(self.seat.classes), self.networks.num_features
        first, last = self.ranks.layout.kept(num_rows)
        edges = [*range(first, last, self.method.rows_at_once), last]
        blocks = [
            Block(slice(a - held.first, b - held.first), self._part, (slice(None), slice(a, b)))
            for a, b in pairwise(edges)
        ]
        drawn = self.drawn(step)
        own = drawn[slice(*span(len(drawn), self.ranks.layout.num_ranks, self.ranks.layout.rank))]
        real_tF, classes_t = self._real(own, images)
        measured: dict[str, Tensor] = {}

        def loss(statistic: Tensor) -> Tensor:
            features, views = statistic.split([num_features, targets.shape[1]], dim=2)
            predictions = self.regression.predictions(real_tF, features.flatten(0, 1), views.flatten(0, 1))
            error = squared_error(predictions, classes_t) / len(drawn)
            gap = label_margin(views[0, first:last]).double() / num_rows
            total = error - gap if self.method.margin else error
            measured.update(regression_loss=total, squared_error=error, label_margin=gap)
            return total

        size_of_statistic = self.method.num_views, num_rows, num_features + targets.shape[1]
        _, gradients = statistic_gradients([images, targets], blocks, size_of_statistic, loss, self.ranks, common=False)
        parts = {name: value.detach().reshape(1) for name, value in measured.items()}
        return Found(dict(zip(("images", "targets"), gradients, strict=True)), parts)

    def _part(self, images: Tensor, targets: Tensor) -> Tensor:
        """Rows (views, b, F + K) of the statistic."""
        views = [images, images.flip(-1)] if self.method.flip else [images]
        return torch.stack([torch.cat([self.networks.features(view), targets], 1) for view in views])

    @torch.no_grad()
    def _real(self, index: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Features (t, F) of real images, and their classes (t,)."""
        images = self.images[index.to(self.images.device)].to(like.device, like.dtype)
        features = [self.networks.features(rows) for rows in images.split(self.method.rows_at_once)]
        return torch.cat(features), self.world.real.train.targets[index].to(like.device)

    def rate_factor(self, step: int) -> float:
        """Half a cosine from 1 to the final rate."""
        num_steps = self.world.num_outer_steps
        moment = Moment(epoch=step, batch=0, num_batches=1, num_epochs=num_steps)
        return Cosine(final=self.method.final_rate).factor(moment)

    def updated(self, step: int, learner: Learner) -> dict[str, float]:
        """The network of the step learns from the set, or is made anew."""
        return self.networks.learn(step, learner)

    def state(self) -> Tensors:
        """Networks that learned from the set."""
        return self.networks.state()

    def load(self, state: Tensors) -> None:
        """Take them back."""
        self.networks.load(state)
