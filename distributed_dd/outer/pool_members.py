"""The networks of a pool that outer steps train and make anew, and what of them a checkpoint holds."""

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import torch

from distributed_dd.outer.method import Tensors


class Aged(Protocol):
    """A network of a pool.

    Attributes:
        number: of all networks that were ever made for the pool; its parameters are drawn with it.
        age: its counter.
    """

    number: int
    age: int


M = TypeVar("M", bound=Aged)

PLACES, NUMBERS, AGES, MADE = (f"pool.{name}" for name in ("places", "numbers", "ages", "num_made"))


class PoolMembers(Generic[M]):
    """The network in each place of a pool; made when it is first asked for.

    Places that were never asked for are left out of the state: their networks can be made again.

    Args:
        num_places: of the pool.
        new: from a number and an age to an untrained network.
        first_age: from a place to the age with which its first network begins: networks of all ages should be there.
    """

    def __init__(self, num_places: int, new: Callable[[int, int], M], first_age: Callable[[int], int]) -> None:
        self._num_places, self._new, self._first_age = num_places, new, first_age
        self._there: dict[int, M] = {}
        self.num_made = num_places

    def __getitem__(self, place: int) -> M:
        if place not in self._there:
            self._there[place] = self._new(place, self._first_age(place))
        return self._there[place]

    def __setitem__(self, place: int, member: M) -> None:
        self._there[place] = member

    def renew(self, place: int) -> None:
        """Put a new network of age 0 there."""
        self._there[place] = self._new(self.num_made, 0)
        self.num_made += 1

    def there(self) -> list[M]:
        """Those that were made, in the order of places: that of rows in the state."""
        return [self._there[place] for place in sorted(self._there)]

    def state(self) -> Tensors:
        """Places, numbers and ages; what else a network has is its owner's to keep."""
        members = self.there()
        numbers = {
            PLACES: sorted(self._there),
            NUMBERS: [member.number for member in members],
            AGES: [member.age for member in members],
            MADE: self.num_made,
        }
        return {name: torch.tensor(values) for name, values in numbers.items()}

    def load(self, state: Tensors, member: Callable[[int, int, int], M]) -> None:
        """The inverse of `state`; empty: as before the first outer step. ``member``: by row, number and age."""
        self._there, self.num_made = {}, self._num_places
        if not state:
            return
        self.num_made = int(state[MADE])
        for row, place in enumerate(state[PLACES].tolist()):
            self._there[place] = member(row, int(state[NUMBERS][row]), int(state[AGES][row]))
