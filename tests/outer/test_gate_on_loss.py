"""A gate on the loss: what passes, and what people hear where nothing does."""

import torch

from distributed_dd.outer.gate import NO_SKIPS, SKIPPED_IN_A_ROW, Gated, count_skipped
from tests.contracts.small_worlds import over_ranks


class Settings(Gated):
    def __init__(self, gate):
        self.gate = gate


def test_a_group_decides_as_its_first_rank_does():
    """Catches ranks of which one unrolls back and the other does not: it would wait for ever."""
    settings = Settings(1.0)

    def both(ranks):
        losses = [torch.tensor(value) for value in ((1.0, 1.1), (1.1, 1.0))[ranks.layout.rank]]
        return [settings.weigh(ranks)(loss) for loss in losses]

    assert over_ranks(2, 1, both) == [[1.0, 0.0], [1.0, 0.0]]
    assert over_ranks(2, 2, both) == [[1.0, 0.0], [0.0, 1.0]]


def test_steps_that_change_nothing_are_counted_and_said_once_in_a_row():
    """Catches a warning in every step, one after steps that lie apart, and a count that begins anew."""
    facts, heard = dict(NO_SKIPS), []
    shut = SKIPPED_IN_A_ROW
    for step, accepted in enumerate([0] * (shut - 1) + [1] + [0] * (shut + 5) + [2] + [0] * shut):
        metrics = {"loss": 3.0, "accepted": accepted}
        heard += [(step, line) for line in count_skipped(step, metrics, facts, "loss", "loss of this test")]
    assert [step for step, _ in heard] == [2 * shut - 1, 3 * shut + 5]
    assert all("the loss of this test (3.00) is above method.gate" in line for _, line in heard)
    assert facts == {"skipped": 3 * shut + 4, "skipped_in_a_row": shut}
