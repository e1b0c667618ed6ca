"""A gang of ranks that Ray starts: they live and die together."""

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from distributed_dd.allocator import keep_freed_memory
from distributed_dd.backends.deepspeed_engine import DeepSpeedEngine, Zero
from distributed_dd.backends.process_group import join
from distributed_dd.backends.torch_ranks import TorchRanks
from distributed_dd.distillation.methods import TrajectoryMatching
from distributed_dd.errors import ConfigError, UserError
from distributed_dd.family import require, setting
from distributed_dd.stages.checkpoint import Shard
from distributed_dd.stages.estimate import Sharing
from distributed_dd.stages.footprint import peak_bytes
from distributed_dd.stages.material import device
from distributed_dd.stages.ports import WorkersLost
from distributed_dd.stages.stored_choice import stored_in
from distributed_dd.stages.worker import Job, Worker

SECONDS_TO_START = 120.0
SECONDS_TO_TELL = 5.0
# How torch.distributed says that another rank, its node or its network is gone.
LOST_CONTACT = ("gloo/transport", "NCCL", "Connection closed", "Connection reset", "EADDRINUSE")


@dataclass(frozen=True)
class DeepSpeedRanks:
    """Several processes do the distillation together, with DeepSpeed: same gradient, less memory each.

    ``split`` says what falls to a rank: segments of its own, a part of every student batch, or, as a grid,
    a part of the batches of its group's segments.
    """

    num_ranks: int = setting("how many processes")
    split: Literal["segments", "student_batch", "grid"] = setting(
        "what is divided over ranks", "student_batch"
    )
    num_groups: int | None = setting("segments at a time, where split is grid", None)
    zero: Zero = setting("what of the set is sharded", default_factory=Zero)
    stored: Literal["auto", "device", "spread", "host"] = setting(
        "where the student parameters of an unroll wait for the way back: each rank keeps all, or its part "
        "of each (spread), or they go to the host's memory; auto takes the first that needs at most a "
        "quarter of a rank's memory", "auto",
    )  # fmt: skip
    cpus_per_rank: int = setting("cores, and so threads, of every rank", 1)
    gpus_per_rank: int | None = setting("0 or 1; null: 1 where the cluster has any", None)
    max_restarts: int = setting("times that lost ranks are replaced without a checkpoint between", 5)
    timeout: float = setting("seconds after which a rank that waits in vain for the others gives up", 1800.0)

    def __post_init__(self) -> None:
        for name in ("num_ranks", "cpus_per_rank"):
            require(getattr(self, name) >= 1, name, f"got {getattr(self, name)}", "1 or more")
        require(self.max_restarts >= 0, "max_restarts", f"got {self.max_restarts}", "0 or more")
        require(self.timeout > 0, "timeout", f"got {self.timeout:g}", "above 0")
        require(
            self.gpus_per_rank in (None, 0, 1), "gpus_per_rank", f"got {self.gpus_per_rank}",
            "0, 1 or null: a rank computes on one GPU",
        )  # fmt: skip
        grid = self.split == "grid"
        require(
            (self.num_groups is not None) == grid, "num_groups",
            "missing: segments at a time" if grid else f"got {self.num_groups} with split={self.split}",
            "a number with split=grid, null otherwise",
        )  # fmt: skip
        require(
            self.num_groups is None or (self.num_groups >= 1 and self.num_ranks % self.num_groups == 0),
            "num_groups", f"{self.num_groups} groups of {self.num_ranks} ranks are not of one size",
            f"a divisor of num_ranks = {self.num_ranks}",
        )  # fmt: skip

    def __str__(self) -> str:
        ranks = "1 rank" if self.num_ranks == 1 else f"{self.num_ranks} ranks"
        return f"{ranks}, split {self.split}, {self.zero}"

    @property
    def groups(self) -> int:
        """Segments that are matched at a time."""
        return {"segments": self.num_ranks, "student_batch": 1, "grid": self.num_groups or 1}[self.split]

    def check(self, method: TrajectoryMatching, num_images: int, network: nn.Module) -> None:
        """Refuse a method that cannot be divided so, before any rank starts.

        Raises:
            ConfigError: with the reason.
        """
        size, segments = self.num_ranks // self.groups, method.segments_per_outer_step
        require(
            segments % self.groups == 0,
            "engine.split",
            f"{self.split} matches {self.groups} segments at a time, and method.segments_per_outer_step is "
            f"{segments}",
            f"a multiple of {self.groups}",
            f"method.segments_per_outer_step={self.groups}, which averages that many gradients in an outer "
            "step; or engine.split=student_batch, which leaves the outer step as it is",
        )
        smallest = method.smallest_batch(num_images)
        require(
            size <= smallest,
            "engine.num_ranks",
            f"{size} ranks share a student batch, and the smallest has {smallest} of the {num_images} images",
            f"at most {smallest} ranks for each segment",
            "fewer ranks, or another method.batch_size",
        )
        require(
            not self.zero.parted or self.num_ranks <= num_images,
            "engine.num_ranks", f"{self.num_ranks} ranks for {num_images} images", f"at most {num_images}",
        )  # fmt: skip
        require(
            method.unroll.shardable or (size == 1 and not self.zero.parted),
            "method.unroll",
            "the direct unroll keeps one graph of the whole batch, which cannot be divided over ranks",
            "kind: replayed, which computes the same gradient; or split=segments with ZeRO stage 0 to 2",
        )
        mixing = [n for n, m in network.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        require(
            size == 1 or not mixing,
            "network", f"layer {mixing[0] if mixing else ''} normalises over the batch, of which a rank "
            "sees a part", "norms of each image alone, such as instance or group norm", "split=segments",
        )  # fmt: skip

    def sharing(self) -> Sharing:
        """What falls to a rank."""
        who, size, zero = f"each of {self}", self.num_ranks // self.groups, self.zero
        if zero.parted:
            return Sharing(who, self.num_ranks, size, 5.0 if zero.own_rows else 7.0)
        return Sharing(who, 1, size, 5.0 if zero.stage == 0 else 4.0 + 4.0 / self.num_ranks)

    def refuse_without_room(self, cluster: Any) -> None:
        """Refuse a cluster whose nodes could not hold the ranks even if they were idle.

        Raises:
            ConfigError: so it is, and no nodes are waited for.
        """
        cluster.connect()
        if not cluster.wait_for_nodes and not self.fits(self.bundle(cluster)):
            raise self.no_room(self.bundle(cluster))

    def bundle(self, cluster: Any) -> dict[str, float]:
        """What a rank asks of Ray."""
        gpus = cluster.gpus_of_a_rank() if self.gpus_per_rank is None else self.gpus_per_rank
        return {"CPU": float(self.cpus_per_rank)} | ({"GPU": float(gpus)} if gpus else {})

    def fits(self, bundle: dict[str, float]) -> bool:
        """Whether the nodes that are there could hold all ranks, were they idle."""
        import ray

        room = 0
        for node in ray.nodes():
            if node["Alive"]:
                room += int(min(node["Resources"].get(n, 0) // value for n, value in bundle.items()))
        return room >= self.num_ranks

    def no_room(self, bundle: dict[str, float]) -> ConfigError:
        """What is told where there is no room."""
        import ray

        have = ray.cluster_resources()
        wanted = " and ".join(f"{value * self.num_ranks:g} {name}" for name, value in bundle.items())
        return ConfigError(
            "engine.num_ranks",
            f"{self.num_ranks} ranks want {wanted}; the cluster has {have.get('CPU', 0):g} CPU and "
            f"{have.get('GPU', 0):g} GPU",
            fix="fewer ranks or cpus_per_rank, more nodes, wait_for_nodes where they are still to come; on "
            "one machine num_cpus in the cluster file says how many cores Ray may count",
        )

    def workers(self, job: Job, cluster: Any, logs: Path) -> "Gang":
        """The gang; ``cluster`` is the Ray cluster that it is started on."""
        return Gang(job, cluster, self, logs)


class _Rank:
    """One rank, in a process of its own."""

    def __init__(self, rank: int, settings: DeepSpeedRanks, log: Path | None, on_gpu: bool) -> None:
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
        self.engine: DeepSpeedEngine | None = None

    def address(self) -> tuple[str, int]:
        """Where the ranks can meet: this node, and a port that is free."""
        import ray

        host = ray.util.get_node_ip_address()
        with socket.socket() as free:
            free.bind(("", 0))
            return host, free.getsockname()[1]

    def join(self, address: str, port: int) -> None:
        """Join the process group."""
        join(address, port, self.rank, self.settings.num_ranks, self.settings.timeout)
        self.ranks = TorchRanks(self.settings.groups)

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
        if self.engine is not None:
            self.engine.close()
        self.engine = DeepSpeedEngine(self.settings.zero, self.ranks, saved, job.method.optimizers())
        stored = stored_in(
            self.settings.stored, job.student.num_parameters, job.method.student_steps, self.ranks
        )
        self.worker = Worker(job, self.engine, self.ranks, stored, saved)
        self._say(record["step"], saved.num_rows)

    def _say(self, step: int, num_rows: int) -> None:
        """What stands in this rank's log, so that a person can tell who died where."""
        layout, settings = self.ranks.layout, self.settings
        first, last = layout.kept(num_rows)
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        place = f"{device()} of {socket.gethostname()}, process {os.getpid()}"
        task = f"{settings.split} (group {layout.group}, place {layout.place})"
        print(
            f"{now} rank {self.rank} of {settings.num_ranks}, {place}: from outer step {step}, {task}, keeps "
            f"rows {first} to {last - 1} of {num_rows}",
            flush=True,
        )

    def outer_steps(self, first: int, last: int) -> Iterator[dict[str, float]]:
        """Make outer steps, telling what each measured."""
        for step in range(first, last):
            yield self.worker.outer_step(step)

    def outer_steps_silently(self, first: int, last: int) -> None:
        """The same on the ranks that need not tell."""
        for _ in self.outer_steps(first, last):
            pass

    def save(self, step: int) -> Shard:
        """Write the rows that this rank keeps."""
        return self.worker.save(step)

    def run(self, function: Callable[[Any, Any], Any], task: Any, shared: Any) -> Any:
        """A task that has nothing to do with the other ranks."""
        return function(task, shared)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """``function(this rank, ...)``, for measurements and tests."""
        return function(self, *arguments)

    def peak_memory_bytes(self) -> int:
        """The most that this rank held."""
        return peak_bytes()


@dataclass
class Gang:
    """Ranks as Ray actors in one placement group.

    A rank that dies takes the others down; `start` begins anew from the newest checkpoint.
    """

    job: Job | None
    cluster: Any
    settings: DeepSpeedRanks
    logs: Path | None
    actors: list[Any] = field(default_factory=list)
    group: Any = None

    def __str__(self) -> str:
        return f"{self.settings}; they start, and say more in ranks/ in the run folder"

    def start(self) -> None:
        """Bring the ranks up, where they are not, and have them begin from the newest checkpoint."""
        if not self.actors:
            self.gather()
        import ray

        self._all("start", ray.put(self.job))

    def gather(self) -> None:
        """Bring the ranks up and together.

        Raises:
            UserError: the cluster has no room for them. WorkersLost: one of them died.
        """
        import ray

        self.cluster.connect()
        bundle = self.settings.bundle(self.cluster)
        gpus = int(bundle.get("GPU", 0))
        self._place(bundle)
        strategy = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(self.group)
        remote: Any = ray.remote(_Rank)
        remote = remote.options(
            num_cpus=self.settings.cpus_per_rank, num_gpus=gpus, scheduling_strategy=strategy
        )
        for rank in range(self.settings.num_ranks):
            log = None if self.logs is None else self.logs / f"rank-{rank}.log"
            self.actors.append(remote.remote(rank, self.settings, log, bool(gpus)))
        address, port = self._get([self.actors[0].address.remote()])[0]
        self._all("join", address, port)

    def _place(self, bundle: dict[str, float]) -> None:
        import ray

        self.group = ray.util.placement_group([bundle] * self.settings.num_ranks, strategy="PACK")
        here = SECONDS_TO_START if self.settings.fits(bundle) else 0.1
        if not self.group.wait(max(self.cluster.wait_for_nodes, here)):
            told = self.settings.no_room(bundle)
            self.stop()
            raise told

    def outer_steps(self, first: int, last: int) -> Iterator[dict[str, float]]:
        """Outer steps on all ranks; what the first of them tells."""
        import ray

        first_actor = self.actors[0]
        told = cast(Any, first_actor.outer_steps.options(num_returns="streaming").remote(first, last))
        others = [actor.outer_steps_silently.remote(first, last) for actor in self.actors[1:]]
        waiting: list[Any] = [told, *others]
        steps = first
        while waiting:
            ready, _ = ray.wait(waiting, num_returns=1)
            if ready[0] is not told:
                self._get(ready)
                waiting.remove(ready[0])
                continue
            try:
                reference = next(cast(Any, told))
            except StopIteration:
                waiting.remove(told)
                continue
            yield self._get([reference], others)[0]
            steps += 1
        if steps != last:
            raise RuntimeError(f"asked for outer steps up to {last}, told of {steps}")

    def save(self, step: int) -> list[Shard]:
        """Every rank writes the rows that it keeps."""
        return self._all("save", step)

    def map(
        self, function: Callable[[Any, Any], Any], tasks: Sequence[Any], shared: Any
    ) -> Iterator[tuple[int, Any]]:
        """Tasks on the ranks, each on the next that is free: the cluster's cores are theirs."""
        import ray

        shared, waiting, free = ray.put(shared), iter(enumerate(tasks)), list(self.actors)
        running: dict[Any, tuple[int, Any]] = {}
        while True:
            while free and (item := next(waiting, None)) is not None:
                actor = free.pop()
                running[actor.run.remote(function, item[1], shared)] = (item[0], actor)
            if not running:
                return
            (done,), _ = ray.wait(list(running), num_returns=1)
            index, actor = running.pop(done)
            yield index, self._get([done])[0]
            free.append(actor)

    def peak_memory_bytes(self) -> int:
        """The most that one rank held."""
        return max(self._all("peak_memory_bytes"))

    def call(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """``function(rank, ...)`` on every rank at once, for measurements and tests."""
        return self._all("call", function, *arguments)

    def stop(self) -> None:
        """Kill the ranks and give back their place."""
        if not self.actors and self.group is None:
            return
        import ray

        for actor in self.actors:
            with contextlib.suppress(Exception):
                ray.kill(actor)
        if self.group is not None:
            with contextlib.suppress(Exception):
                ray.util.remove_placement_group(self.group)
        self.actors, self.group = [], None

    def _all(self, method: str, *arguments: Any) -> list[Any]:
        """A method on all ranks at once; their answers in order."""
        return self._get([getattr(actor, method).remote(*arguments) for actor in self.actors])

    def _get(self, references: list[Any], others: Sequence[Any] = ()) -> list[Any]:
        """Their values; the first failure of any takes all ranks down."""
        import ray

        waiting = list(references)
        try:
            while waiting:
                ready, waiting = ray.wait(waiting, num_returns=1)
                ray.get(ready)
            return ray.get(references)
        except (ray.exceptions.RayError, UserError) as error:
            lost = self._why(error, [*references, *others])
            self.stop()
            raise lost from None

    def _why(self, error: Exception, references: list[Any]) -> Exception:
        """A dead rank makes the others fail too, often sooner: a death explains their errors."""
        import ray

        cause = getattr(error, "cause", None)
        if isinstance(cause, UserError):
            return cause
        if isinstance(cause, torch.OutOfMemoryError):
            return UserError(
                "engine",
                f"a rank ran out of memory: {str(cause).splitlines()[0]}",
                fix="more ranks; zero.own_rows or stage 3 for a large set; stored: spread or host for a deep "
                "unroll; distributed-dd show estimates what each needs",
            )
        deaths = (
            ray.exceptions.RayActorError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError
        )  # fmt: skip
        died = isinstance(error, deaths) or any(word in str(error) for word in LOST_CONTACT)
        if not died:
            # A living rank that waits for a dead one does not answer either: only what is told counts.
            asked = [actor.__ray_ready__.remote() for actor in self.actors]
            told, _ = ray.wait(asked, num_returns=len(asked), timeout=SECONDS_TO_TELL)
            died = any(_is_death(ray, reference) for reference in told)
        if died:
            return WorkersLost(f"a rank died ({str(error).splitlines()[0]})")
        return error


def _is_death(ray: Any, reference: Any) -> bool:
    try:
        ray.get(reference)
    except ray.exceptions.RayActorError:
        return True
    return False


def _into(log: Path) -> None:
    """All that this process says goes to ``log``, after what was said there before."""
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
