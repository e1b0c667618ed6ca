"""Which networks give the features of an outer step: one of a pool that learns from the set, or fresh ones."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from distributed_dd.family import Family, choice, setting
from distributed_dd.learning.chance import generator
from distributed_dd.learning.device import device
from distributed_dd.learning.optimizers import OPTIMIZERS, Adam, Optimizer
from distributed_dd.methods.neural_features.features import Architecture, Fitted
from distributed_dd.outer.by_class import gathered
from distributed_dd.outer.learner import Learner
from distributed_dd.outer.method import Seat, Tensors
from distributed_dd.outer.pool_members import PoolMembers


class Networks(ABC):
    """The networks of outer steps, on one rank.

    Attributes:
        num_features: of an image, under all networks of a step.
    """

    num_features: int

    @abstractmethod
    def begin(self, step: int, like: Tensor) -> None:
        """Make ready for outer step ``step``; numbers as ``like`` has them."""

    @abstractmethod
    def features(self, images_BCHW: Tensor) -> Tensor:
        """Features (B, F) under the networks of the step, side by side; with a graph where images have one."""

    def learn(self, step: int, learner: Learner) -> dict[str, float]:
        """After the update of outer step ``step``: learn from the set; what was measured."""
        return {}

    def state(self) -> Tensors:
        """What cannot be made again."""
        return {}

    def load(self, state: Tensors) -> None:
        """The inverse of `state`; empty: as before the first outer step."""
        return None


class Pool(Protocol):
    """A way to come by networks."""

    @property
    def learns(self) -> bool:
        """Whether networks learn from the set, so that every outer step builds on those before."""
        ...

    def networks(self, architecture: Architecture, seed: int, seat: Seat) -> Networks:
        """The networks as one rank has them."""
        ...

    def passes(self, num_images: int) -> float:
        """Forward passes of one image that what they learn from a set of so many images is worth, per outer step."""
        ...

    def num_networks_of_a_step(self) -> int:
        """That an image passes in an outer step."""
        ...

    def floats_kept(self, num_parameters: int) -> int:
        """Numbers that a checkpoint holds of them."""
        ...


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A pool that learns from the set (FrePo, NeurIPS 2022): the network of a step takes a step on it, and ages."""

    num_networks: int = setting("in the pool; each outer step draws one", 10, at_least=1, at_most=10_000)
    max_age: int = setting("of its steps on the set: one that is older is made anew", 100)
    optimizer: Optimizer = choice(OPTIMIZERS, "its steps on the set", Adam(learning_rate=3e-4))
    batch_size: int = setting("rows of the set that a step of it sees; all, where there are fewer", 1000, at_least=1)

    @property
    def learns(self) -> bool:
        """They do, one at a time."""
        return True

    def networks(self, architecture: Architecture, seed: int, seat: Seat) -> Networks:
        """Untrained, their counters spread over a life."""
        return TrainedNetworks(self, architecture, seed, seat)

    def passes(self, num_images: int) -> float:
        """A step on the set, forward and back."""
        return 3 * min(num_images, self.batch_size)

    def num_networks_of_a_step(self) -> int:
        """The one that was drawn."""
        return 1

    def floats_kept(self, num_parameters: int) -> int:
        """Parameters and both means of Adam."""
        return 3 * self.num_networks * num_parameters


@dataclass(frozen=True, kw_only=True)
class Fresh:
    """Untrained networks, drawn anew for every outer step, their features side by side (RFAD, NeurIPS 2022)."""

    num_networks: int = setting("of an outer step", 8, at_least=1, at_most=10_000)

    @property
    def learns(self) -> bool:
        """Nothing is carried on."""
        return False

    def networks(self, architecture: Architecture, seed: int, seat: Seat) -> Networks:
        """Drawn when a step begins."""
        return FreshNetworks(self.num_networks, architecture)

    def passes(self, num_images: int) -> float:
        """They do not learn."""
        return 0

    def num_networks_of_a_step(self) -> int:
        """All."""
        return self.num_networks

    def floats_kept(self, num_parameters: int) -> int:
        """They are drawn again."""
        return 0


POOLS = Family("pool of networks", {"trained": Trained, "fresh": Fresh})


class FreshNetworks(Networks):
    """Of every step its own."""

    def __init__(self, num_networks: int, architecture: Architecture) -> None:
        self.num_networks, self.architecture = num_networks, architecture
        self.num_features = num_networks * architecture.num_features
        self._now: list[Fitted] = []

    def begin(self, step: int, like: Tensor) -> None:
        """Draw them."""
        numbers = range(self.num_networks)
        self._now = [self.architecture.fresh("outer step", step, "network", n).like(like) for n in numbers]

    def features(self, images_BCHW: Tensor) -> Tensor:
        """Of one after the other."""
        return torch.cat([self.architecture.features(network, images_BCHW) for network in self._now], 1)


@dataclass
class Member:
    """A place in the pool.

    Attributes:
        number: of all networks that were ever made; its parameters are drawn with it.
        age: its counter; places begin with different ones, though all networks begin untrained.
        kept: what its update rule keeps.
    """

    number: int
    age: int
    network: Fitted
    kept: Tensor


THETA, RUNNING, KEPT = (f"pool.{name}" for name in ("theta", "running", "kept"))


class TrainedNetworks(Networks):
    """A pool."""

    def __init__(self, pool: Trained, architecture: Architecture, seed: int, seat: Seat) -> None:
        self.pool, self.architecture, self.seed, self.seat = pool, architecture, seed, seat
        self.num_features = architecture.num_features
        self.members = PoolMembers(
            pool.num_networks, self._new, lambda place: pool.max_age // pool.num_networks * place
        )
        self._place = 0

    def place(self, step: int) -> int:
        """The place that outer step ``step`` draws."""
        rng = generator(self.seed, "pool", "place", step)
        return int(torch.randint(self.pool.num_networks, (1,), generator=rng))

    def begin(self, step: int, like: Tensor) -> None:
        """The network of the step; a place that is drawn for the first time has a counter of its own."""
        self._place = place = self.place(step)
        member = self.members[place]
        member.network, member.kept = member.network.like(like), member.kept.to(like.device, like.dtype)

    def _new(self, number: int, age: int) -> Member:
        network = self.architecture.fresh("pool", number)
        return Member(number, age, network, self.pool.optimizer.start(network.theta_P))

    def features(self, images_BCHW: Tensor) -> Tensor:
        """Of the one that was drawn."""
        return self.architecture.features(self.members[self._place].network, images_BCHW)

    def learn(self, step: int, learner: Learner) -> dict[str, float]:
        """Make a network that has passed its age anew; any other takes one step on the set as it is now."""
        self._place = place = self.place(step)
        member = self.members[place]
        age = member.age
        if age > self.pool.max_age:
            self.members.renew(place)
        else:
            self._step(step, member, learner)
            member.age += 1
        return {"network_age": age}

    def _step(self, step: int, member: Member, learner: Learner) -> None:
        network, num_rows, kept = member.network, len(self.seat.classes), learner.kept()
        images, targets = (gathered(kept[name], num_rows, self.seat.ranks) for name in ("images", "targets"))
        if num_rows > self.pool.batch_size:
            rng = generator(self.seed, "pool", "rows", step)
            rows = torch.randperm(num_rows, generator=rng)[: self.pool.batch_size].to(images.device)
            images, targets = images[rows], targets[rows]

        def gradient(theta_P: Tensor) -> Tensor:
            at = Fitted(theta_P, network.running_Q)
            slope_P = self.architecture.gradient(at, images, targets)
            network.running_Q = at.running_Q
            return slope_P

        theta_P, member.kept = self.pool.optimizer.update(network.theta_P, member.kept, gradient)
        # Ranks on different hardware round differently, and must not drift apart.
        both = self.seat.ranks.first_of_group(torch.cat([theta_P, network.running_Q]))
        member.network = Fitted(*both.split([len(theta_P), len(network.running_Q)]))

    def state(self) -> Tensors:
        """Of every place that a step has drawn: parameters, what the update rule keeps, counter and number."""
        members = self.members.there()
        if not members:
            return {}
        vectors = {
            THETA: [member.network.theta_P for member in members],
            RUNNING: [member.network.running_Q for member in members],
            KEPT: [member.kept for member in members],
        }
        found = {name: torch.stack(several) for name, several in vectors.items() if several[0].numel()}
        return self.members.state() | found

    def load(self, state: Tensors) -> None:
        """Take the pool back."""

        def member(row: int, number: int, age: int) -> Member:
            theta_P = state[THETA][row].to(device())
            running_Q = state[RUNNING][row].to(device()) if RUNNING in state else theta_P.new_zeros(0)
            kept = state[KEPT][row].to(device()) if KEPT in state else theta_P.new_zeros(0)
            return Member(number, age, Fitted(theta_P, running_Q), kept)

        self.members.load(state, member)
