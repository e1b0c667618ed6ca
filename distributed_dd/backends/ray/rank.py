"""One rank of a gang, in a process of its own."""

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from distributed_dd.allocator import keep_freed_memory
from distributed_dd.backends.deepspeed.process_group import Meeting, join, listen
from distributed_dd.backends.deepspeed.tools import DeepSpeedTools
from distributed_dd.backends.deepspeed.torch_ranks import TorchRanks
from distributed_dd.backends.ray.rank_settings import RankSettings
from distributed_dd.backends.ray.salvage import GROUP
from distributed_dd.durable import OWNER_ONLY
from distributed_dd.errors import UserError
from distributed_dd.learning.device import device
from distributed_dd.outer.checkpoint import Shard
from distributed_dd.outer.footprint import peak_bytes
from distributed_dd.outer.ports import Job, Link
from distributed_dd.outer.spares import Measured, Spare, Spares


class Rank:
    """What a process of the gang can do when asked; Ray makes an actor of it."""

    def __init__(self, rank: int, settings: RankSettings, log: Path | None, on_gpu: bool) -> None:
        if log is not None:
            _into(log)
        # DeepSpeed warns of every optimiser but its own; the tests compare this one with torch's.
        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
        if not on_gpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
        torch.set_num_threads(settings.cpus_per_rank)
        keep_freed_memory()
        self.rank, self.settings = rank, settings
        self.tools: DeepSpeedTools | None = None
        self.listening: socket.socket | None = None
        self.spares = Spares()
        self.peer: Any = None

    def address(self) -> tuple[str, int]:
        """Where the ranks can meet: this node, and a port of it at which this rank listens from now on."""
        import ray

        self.listening = listen(ray.util.get_node_ip_address())
        return self.listening.getsockname()[:2]

    def join(self, address: str, port: int) -> None:
        """Join the process group."""
        settings = self.settings
        join(Meeting(address, port, self.listening), self.rank, settings.num_ranks, settings.timeout)
        self.ranks = TorchRanks(settings.groups)

    def befriend(self, peer: Any) -> None:
        """From here on ``peer``, another rank, keeps what this one would save."""
        self.peer = peer

    def start(self, job: Job) -> None:
        """Begin from the newest checkpoint."""
        record = job.checkpoints.load(verify=False)
        if record is None:
            raise UserError(
                f"rank {self.rank} on {socket.gethostname()}",
                f"sees no checkpoint in {job.checkpoints.folder}",
                fix="put output= on a disk that all nodes share",
            )
        saved = job.checkpoints.saved(record["newest"])
        self.checkpoints = job.checkpoints
        self.spares.clear()
        if self.tools is not None:
            self.tools.close()
        self.tools = DeepSpeedTools(self.settings.zero, self.settings.stored, self.ranks)
        self.worker = job.worker(saved, self.tools)
        self._say(record["step"], saved.num_rows)

    def _say(self, step: int, num_rows: int) -> None:
        """Write to this rank's log where it runs, so that a person can see which rank died on which node."""
        layout, settings = self.ranks.layout, self.settings
        first, last = layout.kept(num_rows)
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        place = f"{device()} of {socket.gethostname()}, process {os.getpid()}"
        task = f"{settings.split} (group {layout.group}, place {layout.place})"
        keeps = f", keeps rows {first} to {last - 1} of {num_rows}" if num_rows else ""
        print(
            f"{now} rank {self.rank} of {settings.num_ranks}, {place}: from outer step {step}, {task}{keeps}",
            flush=True,
        )

    def outer_steps(
        self, first: int, last: int, prepared: Any = None, saved_at: int = 0, spare_every: int = 0
    ) -> Iterator[dict[str, float]]:
        """Make outer steps first .. last (exclusive); yields what each measured."""
        for step in range(first, last):
            with self.spares.timed("step"):
                metrics = self.worker.outer_step(step, prepared)
            self.spares.recent.append((step + 1, metrics))
            if spare_every and (step + 1) % spare_every == 0 and step + 1 != saved_at:
                with self.spares.timed("hand over"):
                    self.hand_over(step + 1)
            yield metrics

    def hand_over(self, step: int) -> None:
        """Keep what this rank would save after ``step`` outer steps, and hand a copy to its peer.

        It waits until the peer has it: a rank that finishes the next step knows that all have handed over this one.
        """
        if self.peer is None:
            return
        import ray

        spare = Spare(step, self.worker.packed(step), tuple(self.spares.recent))
        self.spares.keep(self.rank, spare)
        with contextlib.suppress(ray.exceptions.RayError):  # whoever lost contact is found out by the next sum
            handed = self.peer.keep_spare.options(concurrency_group=GROUP).remote(self.rank, spare)
            ray.get(handed, timeout=self.settings.timeout)

    def spare_every(self) -> int:
        """As often as handing over takes at most a tenth of the time, by what this rank has seen."""
        return self.spares.affordable_every()

    def keep_spare(self, rank: int, spare: Spare) -> None:
        """Keep what another rank would save."""
        self.spares.keep(rank, spare)

    def spare_steps(self) -> dict[int, list[int]]:
        """Rank -> steps that it could go on from, of what is kept here."""
        return self.spares.steps()

    def write_spare(self, rank: int, step: int) -> tuple[Shard | None, Sequence[Measured]]:
        """Write a rank's part of a checkpoint, if it has one; and what the last outer steps measured."""
        spare = self.spares.of(rank, step)
        if spare is None:
            raise LookupError(f"no spare of rank {rank} after {step} outer steps")
        shard = None if spare.packed is None else self.checkpoints.write(spare.packed)
        return shard, spare.measured

    def outer_steps_silently(
        self, first: int, last: int, prepared: Any = None, saved_at: int = 0, spare_every: int = 0
    ) -> None:
        """The same on the ranks whose measurements are not needed."""
        for _ in self.outer_steps(first, last, prepared, saved_at, spare_every):
            pass

    def save(self, step: int) -> Shard | None:
        """Write what this rank keeps, if anything."""
        return self.worker.save(step)

    def run(self, function: Callable[[Any, Any], Any], task: Any, shared: Any) -> Any:
        """A task that has nothing to do with the other ranks."""
        return function(task, shared)

    def link(self, function: Link, task: Any, state: Any, shared: Any) -> tuple[Any, Any]:
        """A task of a chain."""
        return function(task, state, shared)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """``function(this rank, ...)``, for measurements and tests."""
        return function(self, *arguments)

    def peak_memory_bytes(self) -> int:
        """The most that this rank held."""
        return peak_bytes()


def _into(log: Path) -> None:
    """Append all output of this process to ``log``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, OWNER_ONLY)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
