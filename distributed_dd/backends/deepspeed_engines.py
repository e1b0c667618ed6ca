"""What one rank learns with, under DeepSpeed."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from distributed_dd.backends.deepspeed_engine import DeepSpeedEngine
from distributed_dd.backends.deepspeed_network_engine import DeepSpeedNetworkEngine
from distributed_dd.distillation.methods.generative import Adam
from distributed_dd.distillation.methods.trajectory_matching import ParameterSGD
from distributed_dd.distillation.sharded import Ranks
from distributed_dd.distillation.unroll import Stored
from distributed_dd.stages.checkpoint import Saved
from distributed_dd.stages.stored_choice import stored_in

if TYPE_CHECKING:
    from distributed_dd.backends.deepspeed_ranks import DeepSpeedRanks


class DeepSpeedEngines:
    """Makes the engines of one rank, and closes them."""

    def __init__(self, settings: "DeepSpeedRanks", ranks: Ranks) -> None:
        self.settings, self.ranks = settings, ranks
        self._made: list[DeepSpeedEngine | DeepSpeedNetworkEngine] = []

    def of_set(self, saved: Saved, optimizers: Mapping[str, ParameterSGD]) -> DeepSpeedEngine:
        """This rank's part of a synthetic set."""
        engine = DeepSpeedEngine(self.settings.zero, self.ranks, saved, optimizers)
        self._made.append(engine)
        return engine

    def of_network(self, saved: Saved, name: str, adam: Adam) -> DeepSpeedNetworkEngine:
        """This rank's part of a network."""
        engine = DeepSpeedNetworkEngine(self.settings.zero, self.ranks, saved, name, adam)
        self._made.append(engine)
        return engine

    def stored(self, num_parameters: int, num_steps: int) -> Callable[[], Stored]:
        """On the device, spread over the group, or in the host's memory."""
        return stored_in(self.settings.stored, num_parameters, num_steps, self.ranks)

    def close(self) -> None:
        """Let go of all that were made."""
        for engine in self._made:
            engine.close()
        self._made.clear()
