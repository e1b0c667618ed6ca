"""Who does the distillation, by kind: this process, or ranks."""

from pathlib import Path
from typing import Any, Protocol

from distributed_dd.backends.deepspeed.engine import DeepSpeedRanks
from distributed_dd.backends.local.engine import Local
from distributed_dd.family import Family
from distributed_dd.outer.division import Division
from distributed_dd.outer.ports import Job, Workers
from distributed_dd.outer.sharing import Sharing


class Engine(Protocol):
    """Makes the workers that do the outer steps."""

    @property
    def max_restarts(self) -> int: ...

    def check(self, division: Division) -> None:
        """Refuse, before anything starts, a method that cannot be divided as this engine divides."""
        ...

    def refuse_without_room(self, cluster: Any) -> None:
        """Refuse, before anything starts, a cluster that could not hold the workers."""
        ...

    def sharing(self) -> Sharing:
        """Which share of the images, of a batch and of the memory falls to one process."""
        ...

    def bundles(self, cluster: Any) -> list[dict[str, float]]:
        """What each of its processes asks of Ray; empty where the driver's own process is the only one."""
        ...

    def workers(self, job: Job, cluster: Any, logs: Path) -> Workers: ...


ENGINES = Family("engine", {"local": Local, "deepspeed": DeepSpeedRanks})
