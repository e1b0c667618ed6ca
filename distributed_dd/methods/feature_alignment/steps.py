"""Outer steps of CAFE on one rank."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from distributed_dd.evaluation.product import Tensors
from distributed_dd.learning.chance import generator
from distributed_dd.learning.device import device
from distributed_dd.learning.flat import flatten
from distributed_dd.learning.networks import initialised
from distributed_dd.methods.feature_alignment.blocks import MOST_IMAGES, Pieces, blocks_of
from distributed_dd.methods.feature_alignment.layers import LayeredNetwork
from distributed_dd.methods.feature_alignment.settings import AlignmentSettings
from distributed_dd.methods.feature_alignment.turns import Turn, turn_in
from distributed_dd.outer.by_class import ClassDraw, gathered, resident
from distributed_dd.outer.learner import Held, Learner
from distributed_dd.outer.method import Found, Seat, Steps
from distributed_dd.outer.statistic import Block, statistic_gradient
from distributed_dd.outer.world import World
from distributed_dd.unroll import span


class AlignmentSteps(Steps):
    """A network for some outer steps, which learns from the set between them, until its accuracy is steady."""

    def __init__(self, method: AlignmentSettings, world: World, seat: Seat) -> None:
        self.method, self.world, self.seat, self.ranks = method, world, seat, seat.ranks
        train, numbers = world.real.train, range(world.num_classes)
        self.real_of = [(train.targets == number).nonzero().flatten() for number in numbers]
        self.targets = train.targets
        self.images = resident(train.images, seat)
        counts = torch.bincount(seat.classes, minlength=world.num_classes).tolist()
        edges = [0, *torch.tensor(counts).cumsum(0).tolist()]
        self.rows_of = [(edges[number], edges[number + 1]) for number in numbers]
        layers = initialised(world.network, world.image_shape, world.num_classes, generator(0, "layout"))
        self.network = LayeredNetwork(layers, world.image_shape)
        self.network.to(device(), torch.float32)
        self.layer_weights = method.weights_at(len(self.network.sizes_of_layers) - 1)
        self.turn: Turn | None = None
        """None before the first outer step of a process without a state."""
        self._fresh: tuple[int, Tensor] | None = None
        self._kept: tuple[int, tuple[Tensor, Tensor, Tensor]] | None = None

    def turn_at(self, step: int) -> Turn:
        """The turn of outer step ``step``.

        Without a state a turn begins there, and is called as if all before it had taken as long as they may: that is
        so at the first step of a run. Elsewhere only a look at the loss asks, for which any fresh network will do.
        """
        return self.turn or Turn(step // self.method.max_updates_per_turn, 0, self.method.nothing_watched)

    def theta_at(self, turn: Turn, like: Tensor) -> Tensor:
        """The network (P,) as the outer step needs it; a fresh one at the beginning of a turn."""
        if turn.theta_P is not None:
            return turn.theta_P.to(like.device, like.dtype)
        if self._fresh is None or self._fresh[0] != turn.number:
            world, rng = self.world, generator(self.world.seed, "network", turn.number)
            self._fresh = turn.number, flatten(initialised(world.network, world.image_shape, world.num_classes, rng))
        return self._fresh[1].to(like.device, like.dtype)

    def draw(self, turn: Turn, number: int) -> ClassDraw:
        """Everything random about class ``number`` in this update."""
        rng = generator(self.world.seed, "turn", turn.number, turn.place, "class", number)
        there = self.real_of[number]
        pick = there[torch.randperm(len(there), generator=rng)[: self.method.batch_size]]
        return ClassDraw(pick, self.method.augment.draw(rng, 1))

    def gradient(self, step: int, held: Held, prepared: Any = None) -> Found:
        """Of the distances between class means in all layers, and of the classification by centres of the set."""
        turn, images = self.turn_at(step), held.images
        theta_P = self.theta_at(turn, images)
        draws = [self.draw(turn, number) for number in range(self.world.num_classes)]
        real, features, targets = self._real(turn, theta_P, draws, images)
        weights = self.network.weights(self.layer_weights, images)
        parts: dict[str, Tensor] = {}
        own = slice(*span(len(real), self.ranks.layout.num_ranks, self.ranks.layout.rank))

        def loss(statistic: Tensor) -> Tensor:
            """This rank's: the distances of its share of the classes, and its real images' cross-entropies."""
            distance = ((statistic - real)[own].square() * weights).sum()
            logits = features @ statistic[:, -self.network.num_features :].T
            entropy = self.method.classification_weight * cross_entropy(logits, targets, reduction="sum")
            parts.update(matching_loss=distance + entropy, classification_loss=entropy)
            return distance + entropy

        blocks = [self._block(theta_P, pieces, draws, held) for pieces in self._own_rows()]
        _, gradient = statistic_gradient(images, blocks, tuple(real.shape), loss, self.ranks, common=False)
        measured = {name: value.detach().reshape(1) for name, value in parts.items()}
        counts = torch.tensor([turn.number, turn.place + 1]) * int(self.ranks.layout.rank == 0)
        return Found({"images": gradient}, {**measured, "turn": counts[:1], "updates_in_turn": counts[1:]})

    def _own_rows(self) -> Iterator[Pieces]:
        """The rows of the set that this rank keeps, in blocks."""
        first, last = self.ranks.layout.kept(len(self.seat.classes))
        spans = [(max(low, first) - low, min(high, last) - low) for low, high in self.rows_of]
        return blocks_of(spans, [high - low for low, high in self.rows_of])

    def _block(self, theta_P: Tensor, pieces: Pieces, draws: list[ClassDraw], held: Held) -> Block:
        """These rows, and their part of the class means of all layers."""
        first = self.rows_of[pieces.pieces[0].number][0] + pieces.pieces[0].first - held.first
        shares, augments = pieces.shares(held.images), [draw.augment for draw in draws]

        def part(rows: Tensor) -> Tensor:
            return self.network.means(theta_P, pieces.augmented(rows, augments), shares)[0]

        return Block(slice(first, first + pieces.num_images), part, pieces.classes)

    @torch.no_grad()
    def _real(self, turn: Turn, theta_P: Tensor, draws: list[ClassDraw], like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Class means (K, all layers) of real images; of this rank's own ones the last layer, and the classes.

        It costs most of an update; other sets that are asked about at the beginning of a turn have the same.
        """
        if self._kept is not None and turn.place == 0 and self._kept[0] == turn.number:
            return self._kept[1]
        layout, totals = self.ranks.layout, [len(draw.real) for draw in draws]
        spans = [span(total, layout.num_ranks, layout.rank) for total in totals]
        means = like.new_zeros(len(draws), sum(self.network.sizes_of_layers))
        features, targets = [like.new_zeros(0, self.network.num_features)], [self.targets[:0]]
        for pieces in blocks_of(spans, totals):
            index = torch.cat([draws[piece.number].real[piece.first : piece.last] for piece in pieces.pieces])
            images = pieces.augmented(self._images(index, like), [draw.augment for draw in draws])
            part, last = self.network.means(theta_P, images, pieces.shares(like))
            means[pieces.classes] += part
            features.append(last)
            targets.append(self.targets[index])
        real = self.ranks.sum(means), torch.cat(features), torch.cat(targets).to(like.device)
        if self.many_sets and turn.place == 0:
            self._kept = turn.number, real
        return real

    def _images(self, index: Tensor, like: Tensor) -> Tensor:
        """Real images as the set has its own: on its device, of its precision."""
        return self.images[index.to(self.images.device)].to(like.device, like.dtype)

    def rate_factor(self, step: int) -> float:
        """Halved at some turns."""
        return self.method.rate(self.turn_at(step).number)

    def updated(self, step: int, learner: Learner) -> dict[str, float]:
        """The turn ends where the network's accuracy is steady; otherwise the network learns from the set."""
        turn, kept = self.turn_at(step), learner.kept()["images"]
        images = gathered(kept, len(self.seat.classes), self.ranks)
        theta_P, metrics, watched = self.theta_at(turn, images), {}, turn.watched
        if self.method.watches_turns:
            metrics["watched_accuracy"] = self._accuracy(theta_P, images, turn, 0)
            watched = watched.after(metrics["watched_accuracy"])
        if turn.place + 1 == self.method.max_updates_per_turn or watched.steady(self.method.turn_spread):
            self.turn = Turn(turn.number + 1, 0, self.method.nothing_watched)
            return metrics | {"network_epochs": 0}
        theta_P, num_epochs = self._learned(theta_P, images, turn)
        # Ranks on different hardware round differently, and must not drift apart.
        self.turn = Turn(turn.number, turn.place + 1, watched, self.ranks.first_of_group(theta_P))
        return metrics | {"network_epochs": num_epochs}

    def _learned(self, theta_P: Tensor, images: Tensor, turn: Turn) -> tuple[Tensor, int]:
        """The network after epochs on the set, and how many."""
        classes, watched, epoch = self.seat.classes.to(images.device), self.method.nothing_watched, 0
        while epoch < self.method.max_inner_epochs and not watched.apart(self.method.inner_spread):
            rng = generator(self.world.seed, "on the set", turn.number, turn.place, epoch)
            for batch in torch.randperm(len(images), generator=rng).split(self.method.network_batch_size):
                augment, index = self.method.network_augment.draw(rng, len(batch)), batch.to(images.device)
                slope = self._slope(theta_P, augment(images[index]), classes[index])
                theta_P = theta_P - self.method.network_learning_rate * slope
            epoch += 1
            if self.method.watches_epochs:
                watched = watched.after(self._accuracy(theta_P, images, turn, epoch))
        return theta_P, epoch

    def _slope(self, theta_P: Tensor, images: Tensor, classes: Tensor) -> Tensor:
        """The gradient (P,) of the mean cross-entropy."""
        theta_P = theta_P.detach().requires_grad_()
        return torch.autograd.grad(cross_entropy(self.network.logits(theta_P, images), classes), theta_P)[0]

    @torch.no_grad()
    def _accuracy(self, theta_P: Tensor, like: Tensor, turn: Turn, epoch: int) -> float:
        """Of the network on random real images, equally many of each class; every rank asks about its share."""
        rng = generator(self.world.seed, "watched", turn.number, turn.place, epoch)
        num = self.method.num_watched_images
        picks = torch.cat([there[torch.randperm(len(there), generator=rng)[:num]] for there in self.real_of])
        layout = self.ranks.layout
        hits = torch.zeros(1, dtype=torch.float64, device=like.device)
        for index in picks[slice(*span(len(picks), layout.num_ranks, layout.rank))].split(MOST_IMAGES):
            guesses = self.network.logits(theta_P, self._images(index, like)).argmax(1)
            hits += (guesses == self.targets[index].to(like.device)).sum()
        return float(self.ranks.sum(hits)) / len(picks)

    def state(self) -> Tensors:
        """The turn: its number, the updates it had, and within one its network and the accuracies of that."""
        return {} if self.turn is None else self.turn.state()

    def load(self, state: Tensors) -> None:
        """Go on in that turn."""
        self.turn = turn_in(state, self.method.nothing_watched, device())
