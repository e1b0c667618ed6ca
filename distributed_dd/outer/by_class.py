"""Steps that compare a statistic of each class of the set with that of real images of the class.

The loss is a sum over classes of a distance between two statistics, each a mean over images. Of the ranks of a
distillation each takes whole classes where its rows end at the edges of classes: then nothing travels but the loss.
Otherwise rows are divided, synthetic and real ones alike, and the statistics are summed over ranks (`statistic`).
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distributed_dd.errors import ConfigError
from distributed_dd.family import require
from distributed_dd.learning.augment import Augmentation, Drawn, part_of
from distributed_dd.learning.chance import generator
from distributed_dd.learning.device import device
from distributed_dd.outer.division import Batch, Division, Obstacle
from distributed_dd.outer.footprint import memory_for_a_process
from distributed_dd.outer.learner import Held
from distributed_dd.outer.method import Found, Seat, Steps
from distributed_dd.outer.statistic import Block, statistic_gradient
from distributed_dd.outer.world import World
from distributed_dd.unroll import Layout, Ranks, span

FRACTION = 0.25
"""Of a process's memory, that real images may take on its device."""


def check_shared(augment: Augmentation) -> None:
    """Refuse an augmentation that would treat real and synthetic images of a class differently.

    Raises:
        ConfigError: the augmentation draws its parameters image by image.
    """
    require(
        getattr(augment, "shared", True),
        "augment.shared",
        "false: real and synthetic images of a class share one draw, or their statistics cannot be compared",
        "true",
    )


def check_no_mixing(mixing: Sequence[Obstacle]) -> None:
    """Refuse a network that looks at several images at once: classes pass it one by one.

    Raises:
        ConfigError: a layer of the network does so.
    """
    for obstacle in mixing:
        raise ConfigError(
            obstacle.field,
            obstacle.reason.replace("of which a rank sees a part", "and classes pass it one by one"),
            allowed=obstacle.allowed,
        )


def division_by_class(world: World) -> Division:
    """Whole classes, or rows of them."""
    return Division(num_rows=world.num_images, batches=(Batch("images_per_class", "synthetic set", world.num_images),))


def notes_on_batches(world: World, batch_size: int) -> list[str]:
    """Classes that have fewer real images than a batch, in a sentence; nothing where all have enough."""
    counts = torch.bincount(world.real.pixels.targets, minlength=world.num_classes)
    short = int((counts < batch_size).sum())
    if not short:
        return []
    fewest = int(counts.min())
    return [
        f"note: {short} of {world.num_classes} classes have fewer than method.batch_size={batch_size} real images "
        f"({fewest} at least): outer steps take all of them"
    ]


@dataclass(frozen=True)
class ClassDraw:
    """All chance of one class in one outer step: real images by index, and an augmentation for all of them."""

    real: Tensor
    augment: Drawn


class ByClass(Steps):
    """A method says what the statistic is and how two are compared; this does the rest.

    Args:
        batch_size: real images of each class in an outer step; all, where a class has fewer.
    """

    def __init__(self, world: World, seat: Seat, batch_size: int, augment: Augmentation) -> None:
        self.world, self.seat, self.ranks = world, seat, seat.ranks
        self.batch_size, self.augment = batch_size, augment
        train, numbers = world.real.train, range(world.num_classes)
        self.real_of = [(train.targets == number).nonzero().flatten() for number in numbers]
        counts = torch.bincount(seat.classes, minlength=world.num_classes).tolist()
        edges = [0, *torch.tensor(counts).cumsum(0).tolist()]
        self.rows_of = [(edges[number], edges[number + 1]) for number in numbers]
        self.images = resident(train.images, seat)
        self._kept: dict[tuple[int, int], Tensor] = {}

    @abstractmethod
    def begin(self, step: int, like: Tensor) -> None:
        """Make ready for outer step ``step``; numbers as ``like`` has them."""

    def depends_on_set(self, step: int) -> bool:
        """Whether statistics of real images in outer step ``step`` depend on the set."""
        return False

    @abstractmethod
    def statistic(self, images: Tensor, number: int) -> Tensor:
        """The statistic of images of class ``number``, a mean over them, with a graph where images have one."""

    @abstractmethod
    def distance(self, synthetic: Tensor, real: Tensor) -> Tensor:
        """How far two statistics of a class are from each other; a scalar."""

    def draw(self, step: int, number: int) -> ClassDraw:
        """Everything random about class ``number`` in outer step ``step``."""
        rng = generator(self.world.seed, "outer step", step, "class", number)
        there = self.real_of[number]
        pick = there[torch.randperm(len(there), generator=rng)[: self.batch_size]]
        return ClassDraw(pick, self.augment.draw(rng, 1))

    def gradient(self, step: int, held: Held, prepared: Any = None) -> Found:
        """The sum over classes of distances between statistics, and its gradient by the images."""
        self.begin(step, held.images)
        classes = own_classes(self.ranks.layout, self.rows_of, held.first, len(held.images))
        by_class = classes is not None
        loss, gradient = self._by_class(step, held, classes) if classes is not None else self._by_rows(step, held)
        counted = by_class or self.ranks.layout.rank == 0  # by rows every rank has the whole loss
        parts = {"matching_loss": (loss if counted else torch.zeros_like(loss)).reshape(1)}
        return Found({"images": gradient}, parts)

    def _by_class(self, step: int, held: Held, classes: range) -> tuple[Tensor, Tensor]:
        """The loss of these classes, one at a time: the graph of one is gone before the next is made."""
        gradient = torch.zeros_like(held.images)
        total = torch.zeros((), dtype=held.images.dtype, device=held.images.device)
        for number in classes:
            draw = self.draw(step, number)
            first, last = (edge - held.first for edge in self.rows_of[number])
            real = self._real_statistic(step, number, draw, held.images)
            leaf = held.images[first:last].detach().requires_grad_()
            loss = self.distance(self.statistic(draw.augment(leaf), number), real)
            (gradient[first:last],) = torch.autograd.grad(loss, leaf)
            total += loss.detach()
        return total, gradient

    def _real_statistic(self, step: int, number: int, draw: ClassDraw, like: Tensor) -> Tensor:
        """The statistic of a class's real images; it costs most, and other sets may ask for the same."""
        if (step, number) in self._kept:
            return self._kept[step, number]
        real = self.statistic(draw.augment(self._real(draw.real, like)), number).detach()
        if self.many_sets and not self.depends_on_set(step):
            self._kept[step, number] = real
        return real

    def _by_rows(self, step: int, held: Held) -> tuple[Tensor, Tensor]:
        """All classes, of each the rows that this rank has: synthetic statistics first, then real ones."""
        layout, count = self.ranks.layout, self.world.num_classes
        first, last = layout.kept(len(self.seat.classes))
        draws = [self.draw(step, number) for number in range(count)]
        blocks = []
        for number, (low, high) in enumerate(self.rows_of):
            a, b = max(low, first), min(high, last)
            if a < b:
                share, augment = (b - a) / (high - low), part_of(draws[number].augment, a - low, b - low)
                rows = slice(a - held.first, b - held.first)
                blocks.append(Block(rows, self._part(number, share, augment), number))
        real = [self._real_part(number, draw, held.images) for number, draw in enumerate(draws)]
        added = torch.cat([torch.zeros_like(torch.stack(real)), torch.stack(real)])

        def loss(statistics: Tensor) -> Tensor:
            synthetic, real = statistics.split(count)
            distances = [self.distance(*pair) for pair in zip(synthetic, real.detach(), strict=True)]
            return torch.stack(distances).sum()

        return statistic_gradient(held.images, blocks, tuple(added.shape), loss, self.ranks, added=added, common=True)

    def _part(self, number: int, share: float, augment: Drawn) -> Any:
        return lambda rows: share * self.statistic(augment(rows), number)

    def _real_part(self, number: int, draw: ClassDraw, like: Tensor) -> Tensor:
        """This rank's part of the real statistic of a class."""
        layout, total = self.ranks.layout, len(draw.real)
        a, b = span(total, layout.num_ranks, layout.rank)
        index = draw.real[a:b] if a < b else draw.real[:1]  # a rank without images still has a shape
        augment = part_of(draw.augment, a, b)
        return (b - a) / total * self.statistic(augment(self._real(index, like)), number).detach()

    def _real(self, index: Tensor, like: Tensor) -> Tensor:
        """Real images as the set has its own: on its device, of its precision."""
        return self.images[index.to(self.images.device)].to(like.device, like.dtype)


def gathered(kept: Tensor, num_rows: int, ranks: Ranks) -> Tensor:
    """All rows (n, ..) on every rank, from those that each keeps."""
    if len(kept) == num_rows:
        return kept
    all_rows = torch.zeros(num_rows, *kept.shape[1:], dtype=kept.dtype, device=kept.device)
    first, last = ranks.layout.kept(num_rows)
    all_rows[first:last] = kept
    return ranks.sum(all_rows)


def own_classes(layout: Layout, rows_of: list[tuple[int, int]], first: int, num_held: int) -> range | None:
    """The classes that a rank takes whole; None where some rank's rows end within a class.

    Where every rank has all rows at hand, classes are dealt out; where it has only its own, they must end at edges.
    """
    num_rows = rows_of[-1][1]
    if num_held == num_rows:
        if layout.num_ranks > len(rows_of):
            return None
        return range(*span(len(rows_of), layout.num_ranks, layout.rank))
    edges = [0, *(last for _, last in rows_of)]
    cuts = [layout.at(rank).kept(num_rows) for rank in range(layout.num_ranks)]
    if any(edge not in edges for cut in cuts for edge in cut):
        return None
    return range(edges.index(first), edges.index(first + num_held))


def resident(images: Tensor, seat: Seat) -> Tensor:
    """Real images on the device where they leave room, in the host's memory otherwise."""
    room = FRACTION * memory_for_a_process(seat.ranks.layout.num_ranks)
    return images.to(device()) if images.nbytes <= room else images
