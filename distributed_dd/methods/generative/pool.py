"""The networks of the pool, trained ahead of the outer steps that they judge.

Their training does not depend on the generator: another process can do it, ahead of the outer steps.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor, nn

from distributed_dd.data import Images
from distributed_dd.errors import ConfigError, DivergedError
from distributed_dd.learning.chance import generator
from distributed_dd.learning.device import device
from distributed_dd.learning.flat import flatten, refuse_noise
from distributed_dd.learning.loop import Recipe, Training
from distributed_dd.learning.networks import initialised
from distributed_dd.learning.networks.blocks import layer_named
from distributed_dd.learning.optimizers import SGD
from distributed_dd.methods.generative.pool_settings import Pool
from distributed_dd.outer.ports import Chain

SPAN_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class PoolJob:
    """What all trainings of the pool need.

    Attributes:
        train: real images as networks see them.
        end: outer steps in all; nothing is trained for what comes after.
        span: outer steps that one task trains for, at most.
    """

    pool: Pool
    seed: int
    train: Images
    num_classes: int
    end: int | None = None
    span: int = 25

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def kind(self, turn: int) -> int:
        """The number of the kind that is in use in a turn."""
        return self.pool.drawn(turn, self.seed)

    def network(self, turn: int) -> nn.Module:
        """The network of a turn, untrained."""
        member = self.pool.networks[self.kind(turn)]
        rng = generator(self.seed, "pool", turn, "start")
        return initialised(member, self.image_shape, self.num_classes, rng)

    def spans(self, step: int) -> Iterator[tuple[int, int, "Span"]]:
        """Outer steps from ``step`` on, cut at the ends of turns and where parameters would fill memory."""
        networks = pool_layers(self.pool, self.image_shape, self.num_classes)
        sizes = [sum(p.numel() for p in layers.parameters()) * 4 for layers in networks]
        while self.end is None or step < self.end:
            turn, place = self.pool.place(step)
            fitting = max(1, SPAN_BYTES // sizes[self.kind(turn)])
            num = min(self.pool.steps_per_network - place, self.span, fitting)
            num = num if self.end is None else min(num, self.end - step)
            yield step, step + num, Span(turn, place, place + num)
            step += num


def pool_layers(pool: Pool, image_shape: tuple[int, int, int], num_classes: int) -> list[nn.Module]:
    """One network of each kind, for its shapes.

    Raises:
        ConfigError: a network draws noise, or has no layer of the name that is asked for.
    """
    networks = []
    for number, member in enumerate(pool.networks):
        try:
            layers = initialised(member, image_shape, num_classes, generator(0, "layout"))
        except ConfigError as error:  # a network calls itself so, wherever it stands
            where = error.where.replace("network", f"method.pool.networks[{number}]", 1)
            raise ConfigError(where, error.problem, allowed=error.allowed, fix=error.fix) from None
        where = f"method.pool.layers[{number}]"
        refuse_noise(layers)
        layer_named(layers, pool.layer(number), where)
        networks.append(layers)
    return networks


@dataclass(frozen=True)
class Span:
    """Outer steps first .. last (exclusive) of a turn, counted from its beginning."""

    turn: int
    first: int
    last: int

    @property
    def begins_anew(self) -> bool:
        """Whether nothing before it is needed."""
        return self.first == 0


@dataclass(frozen=True)
class Reached:
    """The network of a turn after some outer steps of it."""

    turn: int
    step: int
    theta_P: numpy.ndarray
    velocity_P: numpy.ndarray


@dataclass(frozen=True)
class Trained:
    """The parameters of a turn's network at each outer step of a span, (n, P); (1, P) where it never changes.

    As arrays, which processes on one machine share without a copy of their own.
    """

    span: Span
    thetas_nP: numpy.ndarray

    def at(self, place: int) -> Tensor:
        """The parameters (P,) at an outer step, counted from the turn's beginning; a copy."""
        row = min(place - self.span.first, len(self.thetas_nP) - 1)
        return torch.tensor(self.thetas_nP[row])


def train_span(span: Span, reached: Reached | None, job: PoolJob) -> tuple[Trained, Reached]:
    """Train the network of a turn through a span; from its beginning where nothing of it was reached.

    Raises:
        DivergedError: a parameter is no longer finite.
    """
    pool, layers = job.pool, job.network(span.turn)
    if pool.net_steps == 0:
        theta = flatten(layers).numpy()
        return Trained(span, theta[None]), Reached(span.turn, span.last, theta, theta)
    training = _training(layers, span.turn, job)
    done = 0
    if reached is not None and (reached.turn, reached.step) == (span.turn, span.first):
        training.load(torch.tensor(reached.theta_P), torch.tensor(reached.velocity_P).to(device()), 0)
        done = span.first
    rows = []
    for step in range(done, span.last):
        for _ in training.run_steps(step * pool.net_steps, (step + 1) * pool.net_steps):
            pass
        if step >= span.first:
            rows.append(training.theta_P.cpu().numpy())
    if not numpy.isfinite(rows[-1]).all():
        raise DivergedError(
            f"pool network {span.turn}",
            "its parameters are no longer finite",
            fix="lower method.pool.learning_rate",
        )
    ended = Reached(span.turn, span.last, rows[-1], training.velocity_P.cpu().numpy())
    return Trained(span, numpy.stack(rows)), ended


def _training(layers: nn.Module, turn: int, job: PoolJob) -> Training:
    pool, where = job.pool, device()
    recipe = Recipe(
        num_epochs=1,
        batch_size=pool.batch_size,
        augment=pool.augment,
        optimizer=SGD(pool.learning_rate, pool.momentum, pool.weight_decay),
    )
    key = (job.seed, "pool", turn)
    return Training(layers.to(where), job.train.images.to(where), job.train.targets.to(where), recipe, key)


def chain(job: PoolJob) -> Chain:
    """The pool's trainings, to be made ahead."""
    return Chain(train_span, job.spans, job)
