"""What one rank works with under DeepSpeed."""

from collections.abc import Callable, Mapping

from distributed_dd.backends.deepspeed.learner import DeepSpeedLearner
from distributed_dd.backends.deepspeed.zero import Zero
from distributed_dd.learning.update_rules import UpdateRule
from distributed_dd.outer.checkpoint import Saved
from distributed_dd.outer.stored_choice import Place, stored_in
from distributed_dd.unroll import Ranks, Stored


class DeepSpeedTools:
    """Makes the learners of one rank, and closes them.

    Args:
        place: where student parameters of an unroll wait for the way back.
    """

    def __init__(self, zero: Zero, place: Place, ranks: Ranks) -> None:
        self.zero, self.place, self.ranks = zero, place, ranks
        self._learners: list[DeepSpeedLearner] = []

    def learner(self, saved: Saved, rules: Mapping[str, UpdateRule]) -> DeepSpeedLearner:
        """This rank's part of learned tensors."""
        learner = DeepSpeedLearner(self.zero, self.ranks, saved, rules)
        self._learners.append(learner)
        return learner

    def stored(self, num_parameters: int, num_steps: int) -> Callable[[], Stored]:
        """On the device, spread over the group, or in the host's memory."""
        return stored_in(self.place, num_parameters, num_steps, self.ranks)

    def close(self) -> None:
        """Let go of all learners."""
        for learner in self._learners:
            learner.close()
        self._learners.clear()
