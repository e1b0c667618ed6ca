"""A gang of ranks that Ray starts: they live and die together."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from distributed_dd.backends.ray.chained import chained
from distributed_dd.backends.ray.rank import Rank
from distributed_dd.backends.ray.rank_settings import RankSettings
from distributed_dd.backends.ray.salvage import GROUP, salvaged
from distributed_dd.errors import UserError
from distributed_dd.outer.ahead import Ahead
from distributed_dd.outer.checkpoint import Shard
from distributed_dd.outer.ports import Job, Link, WorkersLost
from distributed_dd.outer.spares import Spared, peer_of

SECONDS_TO_START = 120.0
SECONDS_TO_ANSWER = 5.0
# How torch.distributed says that another rank, its node or its network is gone.
LOST_CONTACT = ("gloo/transport", "NCCL", "Connection closed", "Connection reset", "EADDRINUSE")


@dataclass(kw_only=True)
class Gang:
    """Ranks as Ray actors in one placement group.

    A rank that dies takes the others down; `start` begins anew from the newest checkpoint.
    """

    job: Job | None
    cluster: Any
    settings: RankSettings
    logs: Path | None
    actors: list[Any] = field(default_factory=list)
    group: Any = None
    lent: bool = False
    ahead: Ahead | None = None
    left: Spared | None = None
    spare_every: int = 0

    def __str__(self) -> str:
        return f"{self.settings}; they start, and say more in ranks/ in the run folder"

    def start(self) -> None:
        """Bring the ranks up, where they are not, and have them begin from the newest checkpoint."""
        if not self.actors:
            self.gather()
        import ray

        self._all("start", ray.put(self.job))
        if self.job is not None:
            record = self.job.checkpoints.load(verify=False)
            self.left = None
            asked = self.settings.spare_every
            self.spare_every = 1 if asked is None else asked
            self.ahead = Ahead.of(self.job.chain, record["step"] if record else 0, self)

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
        remote: Any = cast(Any, ray).remote(concurrency_groups={GROUP: 1})(Rank)
        for rank in range(self.settings.num_ranks):
            log = None if self.logs is None else self.logs / f"rank-{rank}.log"
            place = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(self.group, rank)
            placed = remote.options(num_cpus=self.settings.cpus_per_rank, num_gpus=gpus, scheduling_strategy=place)
            self.actors.append(placed.remote(rank, self.settings, log, bool(gpus)))
        address, port = self._get([self.actors[0].address.remote()])[0]
        self._all("join", address, port)
        if (num_ranks := len(self.actors)) > 1:
            peers = [self.actors[peer_of(rank, num_ranks)] for rank in range(num_ranks)]
            self._get([actor.befriend.remote(peer) for actor, peer in zip(self.actors, peers, strict=True)])

    def _place(self, bundle: dict[str, float]) -> None:
        import ray

        self.group, self.lent = ray.util.get_current_placement_group(), True
        if self.group is not None and self.group.bundle_specs == [bundle] * self.settings.num_ranks:
            return  # a trial of a search has its ranks' place already
        self.lent = False
        self.group = ray.util.placement_group([bundle] * self.settings.num_ranks, strategy="PACK")
        here = SECONDS_TO_START if self.settings.fits(bundle) else 0.1
        if not self.group.wait(max(self.cluster.wait_for_nodes, here)):
            error = self.settings.no_room(bundle)
            self.stop()
            raise error

    def outer_steps(self, first: int, last: int) -> Iterator[dict[str, float]]:
        """Outer steps on all ranks; yields what the first rank measured."""
        assert self.ahead is not None
        for start, end, handle in self.ahead.spans(first, last):
            yield from self._outer_steps(start, end, handle, last)
        if self.settings.spare_every is None and len(self.actors) > 1:
            self.spare_every = self._get([self.actors[0].spare_every.remote()])[0]

    def _outer_steps(self, first: int, last: int, prepared: Any, saved_at: int) -> Iterator[dict[str, float]]:
        """Outer steps with what was ``prepared`` for them: a reference, which Ray opens on every rank.

        After ``saved_at`` outer steps all is saved, and nobody need keep it in memory.
        """
        import ray

        arguments, first_actor = (first, last, prepared, saved_at, self.spare_every), self.actors[0]
        measured = cast(Any, first_actor.outer_steps.options(num_returns="streaming").remote(*arguments))
        others = [actor.outer_steps_silently.remote(*arguments) for actor in self.actors[1:]]
        waiting: list[Any] = [measured, *others]
        steps = first
        while waiting:
            ready, _ = ray.wait(waiting, num_returns=1)
            if ready[0] is not measured:
                self._get(ready)
                waiting.remove(ready[0])
                continue
            try:
                reference = next(cast(Any, measured))
            except StopIteration:
                waiting.remove(measured)
                continue
            yield self._get([reference], others)[0]
            steps += 1
        if steps != last:
            raise RuntimeError(f"asked for outer steps up to {last}, told of {steps}")

    def save(self, step: int) -> list[Shard]:
        """Every rank writes what it keeps."""
        return [shard for shard in self._all("save", step) if shard is not None]

    def map(self, function: Callable[[Any, Any], Any], tasks: Sequence[Any], shared: Any) -> Iterator[tuple[int, Any]]:
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

    def chain(self, function: Link, tasks: Iterable[Any], shared: Any, ahead: int) -> Iterator[Any]:
        """Tasks of a chain where the cluster has room beside the ranks; otherwise on the first of them.

        There they wait for the steps before them, so that nothing is gained but the result.
        """
        if self.cluster.has_room():
            yield from self.cluster.chain(function, tasks, shared, ahead)
            return
        import ray

        shared_reference, actor = ray.put(shared), self.actors[0]

        def submit(task: Any, state: Any) -> Any:
            return actor.link.options(num_returns=2).remote(function, task, state, shared_reference)

        yield from chained(submit, tasks, 1)

    def fetch(self, handle: Any) -> Any:
        """What a reference stands for."""
        return self.cluster.fetch(handle)

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
        if self.group is not None and not self.lent:
            with contextlib.suppress(Exception):
                ray.util.remove_placement_group(self.group)
        self.actors, self.group, self.ahead = [], None, None

    def _all(self, method: str, *arguments: Any) -> list[Any]:
        """A method on all ranks at once; their answers in order."""
        return self._get([getattr(actor, method).remote(*arguments) for actor in self.actors])

    def _get(self, references: list[Any], others: Sequence[Any] = ()) -> list[Any]:
        """The values of ``references``; the first failure of any takes all ranks down."""
        import ray

        waiting = list(references)
        try:
            while waiting:
                ready, waiting = ray.wait(waiting, num_returns=1)
                ray.get(ready)
            return ray.get(references)
        except (ray.exceptions.RayError, UserError) as error:
            lost = self._why(error, [*references, *others])
            if isinstance(lost, WorkersLost):
                self.left = self._salvaged()
            self.stop()
            raise lost from None

    def _salvaged(self) -> Spared | None:
        """What the survivors hold of a step after the newest checkpoint, written; they still run."""
        record = None
        with contextlib.suppress(UserError):  # a damaged checkpoint is said where it is read
            record = None if self.job is None else self.job.checkpoints.load(verify=False)
        return None if record is None else salvaged(self.actors, record["step"])

    def spared(self) -> Spared | None:
        """What the ranks that were left still held when the last `WorkersLost` was raised."""
        return self.left

    def _why(self, error: Exception, references: list[Any]) -> Exception:
        """The error to raise. A dead rank makes the others fail too, often sooner: its death explains theirs."""
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
        deaths = (ray.exceptions.RayActorError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError)
        dead = self._dead()
        if dead or isinstance(error, deaths) or any(word in str(error) for word in LOST_CONTACT):
            who = f"rank {', '.join(map(str, dead))}" if dead else "a rank"
            return WorkersLost(f"{who} died ({str(error).splitlines()[0]})")
        return error

    def _dead(self) -> list[int]:
        """Ranks that are known to be dead. One that does not answer may hang: only answers count."""
        import ray

        asked = [actor.spare_steps.options(concurrency_group=GROUP).remote() for actor in self.actors]
        answered, _ = ray.wait(asked, num_returns=len(asked), timeout=SECONDS_TO_ANSWER) if asked else ([], [])
        return [rank for rank, reference in enumerate(asked) if reference in answered and _is_death(ray, reference)]


def _is_death(ray: Any, reference: Any) -> bool:
    try:
        ray.get(reference)
    except ray.exceptions.RayActorError:
        return True
    return False
