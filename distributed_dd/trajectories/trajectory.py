"""One expert's parameters over time, read from disk as they are asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from distributed_dd.errors import IntegrityError
from distributed_dd.trajectories.epochs import format_epochs, same_epoch


class Trajectory(Protocol):
    """Parameters by epoch, whatever the form they are kept in."""

    num_parameters: int

    @property
    def num_epochs(self) -> float:
        """The last epoch."""
        ...

    def has(self, epoch: float) -> bool:
        """Whether `checkpoint` can answer."""
        ...

    def checkpoint(self, epoch: float) -> Tensor:
        """Parameters (P,) float32 after ``epoch`` epochs; -1 is the last one, -2 the one before.

        Raises:
            IntegrityError: this epoch was not kept.
        """
        ...


class KeptEpochs:
    """Kept epochs as rows, memory-mapped."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, safe_open(path, framework="pt")
        self._rows = self._file.get_slice("trajectory")
        count, self.num_parameters = self._rows.get_shape()
        named = "epochs" in self._file.keys()  # noqa: SIM118 - not a dictionary
        epochs = self._file.get_tensor("epochs").tolist() if named else range(count)
        self._row_of = {same_epoch(epoch): row for row, epoch in enumerate(epochs)}

    @property
    def num_epochs(self) -> float:
        """The last epoch."""
        return max(self._row_of)

    def has(self, epoch: float) -> bool:
        """Whether it was kept."""
        return same_epoch(_counted(epoch, self.num_epochs)) in self._row_of

    def checkpoint(self, epoch: float) -> Tensor:
        """One row."""
        if not self.has(epoch):
            problem, allowed = f"holds no epoch {epoch:g}", f"epochs {format_epochs(self._row_of)}"
            raise IntegrityError(str(self._path), problem, allowed=allowed)
        row = self._row_of[same_epoch(_counted(epoch, self.num_epochs))]
        return self._rows[row : row + 1].squeeze(0).float()


class Lines:
    """Waypoints with straight lines between them; see `forms.Convex`."""

    def __init__(self, path: Path) -> None:
        self._path, file = path, safe_open(path, framework="pt")
        self._points = file.get_slice("waypoints")
        self._at = file.get_tensor("waypoint_epochs").tolist()
        self._progress_RL = file.get_tensor("progress").double()
        self._sizes = file.get_tensor("sizes")
        self.num_parameters = self._points.get_shape()[1]

    @property
    def num_epochs(self) -> float:
        """The last epoch."""
        return self._at[-1]

    def has(self, epoch: float) -> bool:
        """Whether it lies between the first waypoint and the last."""
        return 0 <= _counted(epoch, self.num_epochs) <= self.num_epochs

    def checkpoint(self, epoch: float) -> Tensor:
        """The point of the line that the expert had reached, layer by layer."""
        if not self.has(epoch):
            problem, allowed = f"holds no epoch {epoch:g}", f"0 to {self.num_epochs:g}"
            raise IntegrityError(str(self._path), problem, allowed=allowed)
        epoch = _counted(epoch, self.num_epochs)
        after = next(index for index, at in enumerate(self._at) if at >= epoch)
        if self._at[after] == epoch:
            return self._point(after)
        before = after - 1
        share_L = self._share(epoch, self._at[before], self._at[after])
        share_P = share_L.repeat_interleave(self._sizes)
        return torch.lerp(self._point(before).double(), self._point(after).double(), share_P).float()

    def _point(self, index: int) -> Tensor:
        return self._points[index : index + 1].squeeze(0).float()

    def _share(self, epoch: float, first: float, last: float) -> Tensor:
        """How much of each layer's path from ``first`` to ``last`` lies before ``epoch``, in [0, 1]."""
        done_L = self._length(epoch) - self._length(first)
        whole_L = self._length(last) - self._length(first)
        by_time = torch.full_like(done_L, (epoch - first) / (last - first))
        return torch.where(whole_L > 0, done_L / whole_L.clamp(min=1e-300), by_time)

    def _length(self, epoch: float) -> Tensor:
        row, fraction = int(epoch), epoch - int(epoch)
        if fraction == 0:
            return self._progress_RL[row]
        return torch.lerp(self._progress_RL[row], self._progress_RL[row + 1], fraction)


def open_trajectory(path: Path) -> Trajectory:
    """The trajectory in a file, in the form it was written in.

    Raises:
        IntegrityError: the file holds no trajectory.
    """
    try:
        with safe_open(path, framework="pt") as file:
            convex = "waypoints" in file.keys()  # noqa: SIM118 - not a dictionary
        return Lines(path) if convex else KeptEpochs(path)
    except (SafetensorError, OSError) as error:
        raise IntegrityError(str(path), f"is no trajectory: {error}") from None


def check_fits(trajectory: Trajectory, where: str, num_parameters: int, needed: Sequence[float]) -> None:
    """Refuse a trajectory of another network, or without an epoch that is needed.

    Raises:
        IntegrityError: the trajectory does not fit.
    """
    if trajectory.num_parameters != num_parameters:
        raise IntegrityError(
            where,
            f"holds {trajectory.num_parameters:,} parameters",
            allowed=f"{num_parameters:,}, as the network in the configuration",
        )
    if lacking := [epoch for epoch in needed if not trajectory.has(epoch)]:
        problem = f"holds epochs up to {trajectory.num_epochs:g}, and not epoch {format_epochs(lacking)}"
        raise IntegrityError(where, problem, allowed="every epoch that the matching window can use")


def _counted(epoch: float, last: float) -> float:
    return epoch if epoch >= 0 else last + 1 + epoch
