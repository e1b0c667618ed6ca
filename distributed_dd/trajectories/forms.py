"""In which form a trajectory is kept: checkpoints, or a few waypoints with straight lines between."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from distributed_dd.family import Family, require, setting
from distributed_dd.trajectories.epochs import parse_epochs, same_epoch

Precision = Literal["float32", "bf16", "float16"]
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "float16": torch.float16}


class Form(Protocol):
    """How one expert's parameters over time become tensors on disk."""

    def recorded(self, num_epochs: int, needed: Sequence[float]) -> tuple[float, ...]:
        """The epochs whose parameters training has to record, for a run that needs some of them."""
        ...

    def covers(self, kept: Sequence[float], needed: Sequence[float]) -> bool:
        """Whether an expert with the epochs ``kept`` can give those that are needed."""
        ...

    def tensors(self, epochs_R: Sequence[float], rows_RP: Tensor, sizes: Sequence[int]) -> dict[str, Tensor]:
        """What is kept; ``sizes`` are the numbers of elements of the network's parameters."""
        ...

    def bytes_per_expert(self, num_epochs: int, needed: Sequence[float], num_parameters: int) -> int:
        """Disk for one expert, the header aside."""
        ...


@dataclass(frozen=True)
class Full:
    """The parameters after every kept epoch, (kept epochs, P)."""

    keep_epochs: str | float | tuple[float, ...] = setting(
        'all; window: those the matching window can use, and the last; or epochs such as "0-22,100" or '
        '"0-4:0.5,5-22" with fractions, beside those that the run itself needs',
        "all",
        identity=False,
    )
    precision: Precision = setting("number format on disk; all is read as float32", "float32")

    def __post_init__(self) -> None:
        self._listed()

    def recorded(self, num_epochs: int, needed: Sequence[float]) -> tuple[float, ...]:
        """``keep_epochs``, what is needed, and the last epoch.

        Raises:
            ConfigError: an epoch beyond the last.
        """
        kept: set[float] = {*map(same_epoch, needed), float(num_epochs)}
        if self.keep_epochs == "all":
            kept |= set(map(float, range(num_epochs + 1)))
        kept |= set(self._listed())
        problem = f"epoch {max(kept):g} is beyond the {num_epochs} epochs of training"
        require(max(kept) <= num_epochs, "keep_epochs", problem, f"at most {num_epochs}")
        return tuple(sorted(kept))

    def _listed(self) -> tuple[float, ...]:
        """The epochs that ``keep_epochs`` names one by one."""
        if self.keep_epochs in ("all", "window"):
            return ()
        if isinstance(self.keep_epochs, str):
            return parse_epochs(self.keep_epochs)
        listed = self.keep_epochs if isinstance(self.keep_epochs, tuple) else (self.keep_epochs,)
        require(min(listed, default=-1.0) >= 0, "keep_epochs", f"got {list(listed)}", "epochs, 0 or more")
        return tuple(map(same_epoch, listed))

    def covers(self, kept: Sequence[float], needed: Sequence[float]) -> bool:
        """Whether all needed epochs were kept."""
        return {*map(same_epoch, needed)} <= {*kept}

    def tensors(self, epochs_R: Sequence[float], rows_RP: Tensor, sizes: Sequence[int]) -> dict[str, Tensor]:
        """``trajectory`` (R, P) and ``epochs`` (R,).

        Raises:
            ConfigError: a parameter is too large for the number format.
        """
        rows = rows_RP.to(DTYPES[self.precision])
        _check_finite(rows, self.precision)
        return {"trajectory": rows, "epochs": torch.tensor(epochs_R, dtype=torch.float64)}

    def bytes_per_expert(self, num_epochs: int, needed: Sequence[float], num_parameters: int) -> int:
        """One number for each parameter and kept epoch."""
        return len(self.recorded(num_epochs, needed)) * num_parameters * DTYPES[self.precision].itemsize


@dataclass(frozen=True)
class Convex:
    """Straight lines between waypoints (MCT, CVPR 2025): less noise in the path and far less disk.

    Along a line every layer advances as the expert itself did: the place at epoch t is the share of the
    layer's path length that the expert had covered by then. So any epoch, fractions included, can be read.
    """

    waypoints: tuple[float, ...] = setting(
        "epochs between the first and the last to pass through", (), at_most=1_000_000
    )
    smoothing: int = setting("neighbouring epochs on each side averaged into an inner waypoint", 1, at_most=1_000_000)
    precision: Precision = setting("number format on disk; all is read as float32", "float32")

    def __post_init__(self) -> None:
        integral = all(waypoint == int(waypoint) for waypoint in self.waypoints)
        require(integral, "waypoints", f"got {list(self.waypoints)}", "whole epochs")

    def recorded(self, num_epochs: int, needed: Sequence[float]) -> tuple[float, ...]:
        """Every epoch: path lengths are sums over all of them.

        Raises:
            ConfigError: a waypoint beyond the last epoch.
        """
        self._passed(num_epochs)
        return tuple(map(float, range(num_epochs + 1)))

    def covers(self, kept: Sequence[float], needed: Sequence[float]) -> bool:
        """Whether the last epoch is late enough: every epoch before it can be read."""
        return max(kept) >= max(needed)

    def tensors(self, epochs_R: Sequence[float], rows_RP: Tensor, sizes: Sequence[int]) -> dict[str, Tensor]:
        """``waypoints`` (W, P), their epochs, and ``progress`` (R, L): path length of each layer so far."""
        last = len(rows_RP) - 1
        passed = self._passed(last)
        points = []
        for epoch in map(int, passed):
            reach = 0 if epoch in (0, last) else min(self.smoothing, epoch, last - epoch)
            points.append(rows_RP[epoch - reach : epoch + reach + 1].mean(0))
        waypoints = torch.stack(points).to(DTYPES[self.precision])
        _check_finite(waypoints, self.precision)
        steps_RL = [part.norm(dim=1) for part in rows_RP.diff(dim=0).split(list(sizes), 1)]
        progress = torch.cat([torch.zeros(1, len(sizes)), torch.stack(steps_RL, 1).cumsum(0)])
        return {
            "waypoints": waypoints,
            "waypoint_epochs": torch.tensor(passed, dtype=torch.float64),
            "progress": progress.contiguous(),
            "epochs": torch.tensor(epochs_R, dtype=torch.float64),
            "sizes": torch.tensor(sizes),
        }

    def bytes_per_expert(self, num_epochs: int, needed: Sequence[float], num_parameters: int) -> int:
        """One number for each parameter and waypoint; path lengths are next to nothing."""
        return len(self._passed(num_epochs)) * num_parameters * DTYPES[self.precision].itemsize

    def _passed(self, num_epochs: int) -> tuple[float, ...]:
        beyond = max(self.waypoints, default=0)
        problem = f"epoch {beyond:g} is beyond the {num_epochs} epochs of training"
        require(beyond <= num_epochs, "waypoints", problem, f"at most {num_epochs}")
        return tuple(sorted({0.0, *self.waypoints, float(num_epochs)}))


def _check_finite(rows: Tensor, precision: str) -> None:
    require(
        bool(rows.isfinite().all()),
        "experts.trajectory.precision",
        f"a parameter is too large for {precision}",
        "float32 or bf16",
    )


FORMS = Family("trajectory form", {"full": Full, "convex": Convex})
