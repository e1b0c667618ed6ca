"""Networks of a pool by place: made when they are wanted, made anew under new numbers, kept by row."""

from dataclasses import dataclass

from distributed_dd.outer.pool_members import PoolMembers


@dataclass
class Numbered:
    number: int
    age: int


def test_networks_begin_with_ages_of_their_places_and_are_renewed_under_numbers_of_their_own():
    """Catches a number that comes twice, of which two networks would be drawn alike."""
    members = PoolMembers(3, Numbered, lambda place: 10 * place)
    assert members.there() == [] and members[2] == Numbered(2, 20) and members[0] == Numbered(0, 0)
    assert members.there() == [Numbered(0, 0), Numbered(2, 20)]
    members.renew(2)
    members.renew(0)
    assert members[2] == Numbered(3, 0) and members[0] == Numbered(4, 0) and members[1] == Numbered(1, 10)


def test_a_state_brings_back_what_was_asked_for_and_nothing_else():
    """Catches rows of another place, and networks of before that stay."""
    members = PoolMembers(4, Numbered, lambda place: place)
    members[3].age += 5
    members.renew(1)
    state, rows = members.state(), []

    def member(row, number, age):
        rows.append(row)
        return Numbered(number, age)

    other = PoolMembers(4, Numbered, lambda place: place)
    other[0].age = 99
    other.load(state, member)
    assert rows == [0, 1] and other.there() == [Numbered(4, 0), Numbered(3, 8)] and other.num_made == 5
    assert other[0] == Numbered(0, 0)
    other.load({}, member)
    assert other.there() == [] and other.num_made == 4
