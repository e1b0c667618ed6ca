"""What a gang and its ranks ask of the settings of their engine."""

from typing import Any, Protocol

from distributed_dd.backends.deepspeed.zero import Zero
from distributed_dd.errors import ConfigError
from distributed_dd.outer.stored_choice import Place


class RankSettings(Protocol):
    """How one distillation is divided over ranks, and what each takes."""

    @property
    def num_ranks(self) -> int: ...

    @property
    def cpus_per_rank(self) -> int: ...

    @property
    def timeout(self) -> float:
        """Seconds after which a rank that waits in vain for the others gives up."""
        ...

    @property
    def spare_every(self) -> int | None:
        """Outer steps after which a rank hands what it would save to a peer; 0: never; None: by what it costs."""
        ...

    @property
    def groups(self) -> int:
        """Segments that are matched at a time."""
        ...

    @property
    def split(self) -> str: ...

    @property
    def zero(self) -> Zero: ...

    @property
    def stored(self) -> Place: ...

    def bundle(self, cluster: Any) -> dict[str, float]:
        """What a rank asks of Ray."""
        ...

    def fits(self, bundle: dict[str, float]) -> bool:
        """Whether the nodes that are there could hold all ranks, were they idle."""
        ...

    def no_room(self, bundle: dict[str, float]) -> ConfigError:
        """The error for ranks that do not fit: what they want, and what the cluster has."""
        ...
