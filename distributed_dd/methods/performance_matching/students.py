"""Where students begin: untrained networks, drawn anew or always the same, or a pool of networks of staggered age."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from distributed_dd.family import Family, setting
from distributed_dd.learning.chance import generator
from distributed_dd.learning.device import device
from distributed_dd.outer.method import Tensors
from distributed_dd.outer.pool_members import PoolMembers
from distributed_dd.unroll import Moment, Ranks

Untrained = Callable[..., Tensor]
"""From the words of a random key to parameters (P,)."""


@dataclass
class Beginning:
    """A student before its first step of an outer step.

    Attributes:
        updates: steps that it has made; they made the slots of its rule.
        number, age: of a network of a pool.
    """

    moment: Moment
    updates: int = 0
    number: int = 0
    age: int = 0

    def like(self, other: Tensor) -> "Beginning":
        """This on the device and in the precision of ``other``."""
        theta_P, *slots = (vector.to(other.device, other.dtype) for vector in (self.moment.theta_P, *self.moment.slots))
        return Beginning(Moment(theta_P, tuple(slots)), self.updates, self.number, self.age)


class Students(ABC):
    """The students of outer steps, the same on every rank."""

    @abstractmethod
    def begin(self, step: int, number: int, num_students: int) -> Beginning:
        """Student ``number`` of the ``num_students`` of outer step ``step``."""

    def end(self, step: int, ends: Sequence[Moment | None], num_steps: int, ranks: Ranks) -> dict[str, float]:
        """After the update: what became of each student, None of those that other ranks trained; metrics."""
        return {}

    def state(self) -> Tensors:
        """What cannot be made again."""
        return {}

    def load(self, state: Tensors) -> None:
        """The inverse of `state`; empty: as before the first outer step."""
        return None


class Source(Protocol):
    """A way to come by students."""

    @property
    def carries_on(self) -> bool:
        """Whether outer steps build on each other."""
        ...

    def students(self, untrained: Untrained, num_slots: int, seed: int) -> Students:
        """As one rank has them."""
        ...

    def vectors_kept(self, num_slots: int) -> int:
        """Vectors of parameters in a checkpoint."""
        ...


@dataclass(frozen=True)
class Fresh:
    """Untrained, drawn anew for every outer step: the set must serve any initialisation."""

    @property
    def carries_on(self) -> bool:
        """They do not."""
        return False

    def students(self, untrained: Untrained, num_slots: int, seed: int) -> Students:
        """By the numbers of the outer step and of the student."""
        return Drawn(lambda step, number: untrained("outer step", step, "network", number))

    def vectors_kept(self, num_slots: int) -> int:
        """They are drawn again."""
        return 0


@dataclass(frozen=True)
class Known:
    """Untrained, always the same one: the set serves this one initialisation alone (Wang et al., 2018)."""

    @property
    def carries_on(self) -> bool:
        """They do not."""
        return False

    def students(self, untrained: Untrained, num_slots: int, seed: int) -> Students:
        """By the seed."""
        return Drawn(lambda step, number: untrained("known network"))

    def vectors_kept(self, num_slots: int) -> int:
        """It is drawn again."""
        return 0


@dataclass(frozen=True)
class Pool:
    """Networks that train on the set as it changes: a student goes on where its steps of an earlier outer step ended.

    Counters of the places of the pool begin staggered, so that networks of all ages are there. The state of the
    student's rule, such as momenta, is carried on too.
    """

    num_networks: int = setting("in the pool; each student of an outer step is one of them", 10, at_least=1)
    max_age: int = setting("student steps on the set: a network that has made so many is made anew", 200, at_least=1)

    @property
    def carries_on(self) -> bool:
        """They do."""
        return True

    def students(self, untrained: Untrained, num_slots: int, seed: int) -> Students:
        """Untrained at first."""
        return Pooled(self, untrained, num_slots, seed)

    def vectors_kept(self, num_slots: int) -> int:
        """Parameters and slots."""
        return self.num_networks * (1 + num_slots)


SOURCES: Family = Family("source of students", {"fresh": Fresh, "known": Known, "pool": Pool})


class Drawn(Students):
    """Untrained ones."""

    def __init__(self, untrained: Callable[[int, int], Tensor]) -> None:
        self._untrained = untrained

    def begin(self, step: int, number: int, num_students: int) -> Beginning:
        """Its rule has no state yet."""
        return Beginning(Moment(self._untrained(step, number)))


UPDATES, VECTORS = "pool.updates", "pool.vectors"


class Pooled(Students):
    """A pool."""

    def __init__(self, pool: Pool, untrained: Untrained, num_slots: int, seed: int) -> None:
        self.pool, self.untrained, self.num_slots, self.seed = pool, untrained, num_slots, seed
        self.members = PoolMembers(
            pool.num_networks, self._new, lambda place: pool.max_age * place // pool.num_networks
        )

    def places(self, step: int, num_students: int) -> list[int]:
        """The places that the students of an outer step are; all differ."""
        rng = generator(self.seed, "pool", "places", step)
        return torch.randperm(self.pool.num_networks, generator=rng)[:num_students].tolist()

    def begin(self, step: int, number: int, num_students: int) -> Beginning:
        """As an earlier outer step left it; untrained, where none did."""
        return self.members[self.places(step, num_students)[number]]

    def _new(self, number: int, age: int) -> Beginning:
        theta_P = self.untrained("pool", number)
        return Beginning(
            Moment(theta_P, tuple(torch.zeros_like(theta_P) for _ in range(self.num_slots))), 0, number, age
        )

    def end(self, step: int, ends: Sequence[Moment | None], num_steps: int, ranks: Ranks) -> dict[str, float]:
        """Students go on from their ends; those that are old enough are made anew."""
        ages, trained_here = [], next(end for end in ends if end is not None)
        for number, place in enumerate(self.places(step, len(ends))):
            before = self.members[place]
            ages.append(before.age)
            age, updates = before.age + num_steps, before.updates + num_steps
            moment = _agreed(ends[number], trained_here, ranks)
            self.members[place] = Beginning(moment, updates, before.number, age)
            if age >= self.pool.max_age:
                self.members.renew(place)
        return {"network_age": sum(ages) / len(ages)}

    def state(self) -> Tensors:
        """Of every place that was drawn: its vectors, counter and number."""
        members = self.members.there()
        if not members:
            return {}
        vectors = torch.stack([torch.stack([m.moment.theta_P, *m.moment.slots]) for m in members])
        updates = torch.tensor([member.updates for member in members])
        return self.members.state() | {UPDATES: updates, VECTORS: vectors}

    def load(self, state: Tensors) -> None:
        """Take the pool back."""

        def member(row: int, number: int, age: int) -> Beginning:
            theta_P, *slots = state[VECTORS][row].to(device())
            return Beginning(Moment(theta_P, tuple(slots)), int(state[UPDATES][row]), number, age)

        self.members.load(state, member)


def _agreed(end: Moment | None, like: Moment, ranks: Ranks) -> Moment:
    """What the first rank of the group that trained a student has of it, on every rank."""
    if end is not None and ranks.layout.place == 0:
        part = torch.stack([end.theta_P, *end.slots])
    else:
        part = torch.zeros_like(torch.stack([like.theta_P, *like.slots]))
    theta_P, *slots = ranks.sum(part)
    return Moment(theta_P, tuple(slots))
