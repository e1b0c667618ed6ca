"""Who does the distillation, by kind: this process, or ranks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from distributed_dd.backends.deepspeed_ranks import DeepSpeedRanks
from distributed_dd.backends.local_workers import Local
from distributed_dd.distillation.methods import Generative, TrajectoryMatching
from distributed_dd.family import Family
from distributed_dd.stages.estimate import Sharing
from distributed_dd.stages.ports import Job, Workers


class Engine(Protocol):
    """Makes those who do the outer steps."""

    @property
    def max_restarts(self) -> int: ...

    def check(self, method: TrajectoryMatching, num_images: int, network: nn.Module) -> None:
        """Refuse, before anything starts, a distillation of a set that it cannot do."""
        ...

    def check_generative(self, method: Generative, pool: Sequence[nn.Module]) -> None:
        """Refuse, before anything starts, a distillation of a generator that it cannot do."""
        ...

    def refuse_without_room(self, cluster: Any) -> None:
        """Refuse, before anything starts, a cluster that could not hold them."""
        ...

    def sharing(self) -> Sharing:
        """What falls to one process."""
        ...

    def bundles(self, cluster: Any) -> list[dict[str, float]]:
        """What its processes ask of Ray; nothing where the driver's own process is the only one."""
        ...

    def workers(self, job: Job, cluster: Any, logs: Path) -> Workers: ...


ENGINES = Family("engine", {"local": Local, "deepspeed": DeepSpeedRanks})
