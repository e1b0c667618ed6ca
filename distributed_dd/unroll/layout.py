"""Which rank computes what, and which rank keeps what. Pure arithmetic, the same on every rank."""

from dataclasses import dataclass


def span(num_items: int, num_parts: int, part: int) -> tuple[int, int]:
    """First and last (exclusive) item of part ``part``; parts are contiguous and differ by one at most."""
    quotient, rest = divmod(num_items, num_parts)
    first = part * quotient + min(part, rest)
    return first, first + quotient + (part < rest)


@dataclass(frozen=True)
class Layout:
    """Ranks as a grid: ``num_groups`` segments at once, the ranks of a group share each student batch.

    Rank r is place r % group_size of group r // group_size.
    """

    rank: int = 0
    num_ranks: int = 1
    num_groups: int = 1

    @property
    def group_size(self) -> int:
        """Ranks that share a student batch."""
        return self.num_ranks // self.num_groups

    @property
    def group(self) -> int:
        """The number of this rank's group."""
        return self.rank // self.group_size

    @property
    def place(self) -> int:
        """The place of this rank in its group."""
        return self.rank % self.group_size

    def at(self, rank: int) -> "Layout":
        """The same grid as another rank sees it."""
        return Layout(rank, self.num_ranks, self.num_groups)

    def rounds(self, num_segments: int) -> range:
        """How often every group takes a segment in an outer step."""
        return range(num_segments // self.num_groups)

    def segment(self, number_of_round: int, group: int) -> int:
        """The segment that a group takes in a round."""
        return number_of_round * self.num_groups + group

    def part(self, batch_size: int) -> tuple[int, int]:
        """The places in a student batch that this rank computes."""
        return span(batch_size, self.group_size, self.place)

    def kept(self, num_rows: int) -> tuple[int, int]:
        """The rows of the synthetic set that this rank keeps where the set is sharded, and saves."""
        return span(num_rows, self.num_ranks, self.rank)
