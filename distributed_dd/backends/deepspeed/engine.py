"""How one distillation is divided over ranks: the `deepspeed` kind of a cluster file's engine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distributed_dd.backends.deepspeed.zero import Zero
from distributed_dd.backends.ray.gang import Gang
from distributed_dd.errors import ConfigError
from distributed_dd.family import require, setting
from distributed_dd.outer.division import Division
from distributed_dd.outer.ports import Job
from distributed_dd.outer.sharing import Sharing


@dataclass(frozen=True, kw_only=True)
class DeepSpeedRanks:
    """Several processes do the distillation together, with DeepSpeed: same gradient, less memory each.

    ``split`` says what a rank computes: segments of its own, a part of every student batch, or, as a grid,
    a part of the batches of its group's segments.
    """

    num_ranks: int = setting("how many processes", at_least=1, at_most=65_536)
    split: Literal["segments", "student_batch", "grid"] = setting("what is divided over ranks", "student_batch")
    num_groups: int | None = setting("segments at a time, where split is grid", None, at_least=1)
    zero: Zero = setting("what of the set is sharded", default_factory=Zero)
    stored: Literal["auto", "device", "spread", "host"] = setting(
        "where the student parameters of an unroll wait for the way back: each rank keeps all, or its part "
        "of each (spread), or they go to the host's memory; auto takes the first that needs at most a "
        "quarter of a rank's memory",
        "auto",
    )
    cpus_per_rank: int = setting("cores, and so threads, of every rank", 1, at_least=1, at_most=65_536)
    gpus_per_rank: int | None = setting("0 or 1; null: 1 where the cluster has any", None)
    max_restarts: int = setting("times that lost ranks are replaced without a checkpoint between", 5)
    spare_every: int | None = setting(
        "outer steps after which each rank keeps its state in memory and hands a copy to a peer, from which all go on "
        "when a rank dies; null: 1, or as many as keep this below a tenth of the time; 0: never, all go on from the "
        "last checkpoint",
        None,
        at_least=0,
    )
    timeout: float = setting("seconds after which a rank that waits in vain for the others gives up", 1800.0, above=0)

    def __post_init__(self) -> None:
        require(
            self.gpus_per_rank in (None, 0, 1),
            "gpus_per_rank",
            f"got {self.gpus_per_rank}",
            "0, 1 or null: a rank computes on one GPU",
        )
        grid = self.split == "grid"
        require(
            (self.num_groups is not None) == grid,
            "num_groups",
            "missing: segments at a time" if grid else f"got {self.num_groups} with split={self.split}",
            "a number with split=grid, null otherwise",
        )
        require(
            self.num_groups is None or (self.num_groups >= 1 and self.num_ranks % self.num_groups == 0),
            "num_groups",
            f"{self.num_groups} groups of {self.num_ranks} ranks are not of one size",
            f"a divisor of num_ranks = {self.num_ranks}",
        )

    def __str__(self) -> str:
        ranks = "1 rank" if self.num_ranks == 1 else f"{self.num_ranks} ranks"
        return f"{ranks}, split {self.split}, {self.zero}"

    @property
    def groups(self) -> int:
        """Segments that are matched at a time."""
        return {"segments": self.num_ranks, "student_batch": 1, "grid": self.num_groups or 1}[self.split]

    def check(self, division: Division) -> None:
        """Refuse a method that cannot be divided so, before any rank starts.

        Raises:
            ConfigError: the method cannot be divided in this way; the message says why.
        """
        self._check_segments(division)
        size, num_rows = self.num_ranks // self.groups, division.num_rows // division.pictures
        require(
            num_rows > 0 or not self.zero.own_rows,
            "engine.zero.own_rows",
            "what is learned has no rows",
            "zero.stage: 0 to 3",
        )
        require(
            not self.zero.parted or num_rows == 0 or self.num_ranks <= num_rows,
            "engine.num_ranks",
            f"{self.num_ranks} ranks for {num_rows} images",
            f"at most {num_rows}",
        )
        require(
            division.pictures == 1 or num_rows % self.num_ranks == 0,
            "engine.num_ranks",
            f"{self.num_ranks} ranks for {num_rows} stored images of {division.pictures} pictures each (set.form): the "
            "pictures of an image would lie on two ranks",
            f"a divisor of {num_rows}, classes times images_per_class",
        )
        for batch in division.batches:
            require(
                size <= batch.num_rows,
                "engine.num_ranks",
                f"{size} ranks share a {batch.what}, and the smallest has {batch.num_rows} images ({batch.field})",
                f"at most {batch.num_rows} ranks that share one",
                f"fewer ranks, or another {batch.field}",
            )
        kept_apart = size > 1 or (self.zero.parted and num_rows > 0)
        for obstacle in (*division.obstacles, *(division.mixing if size > 1 else ())):
            require(not kept_apart, obstacle.field, obstacle.reason, obstacle.allowed, obstacle.fix)

    def _check_segments(self, division: Division) -> None:
        segments = division.num_segments
        require(
            segments is not None or self.split == "student_batch",
            "engine.split",
            f"{self.split}: this method has no segments",
            "student_batch: each rank has a part of every batch",
        )
        field = division.segments_field
        require(
            (segments or 1) % self.groups == 0,
            "engine.split",
            f"{self.split} matches {self.groups} segments at a time, and {field} is {segments}",
            f"a multiple of {self.groups}",
            f"{field}={self.groups}, which averages that many gradients in an outer step; or "
            "engine.split=student_batch, which leaves the outer step as it is",
        )

    def sharing(self) -> Sharing:
        """Which share of the images, of a batch and of the memory falls to one rank."""
        who, size, zero = f"each of {self}", self.num_ranks // self.groups, self.zero
        if zero.parted:
            return Sharing(who, self.num_ranks, size, 5.0 if zero.own_rows else 7.0)
        return Sharing(who, 1, size, 5.0 if zero.stage == 0 else 4.0 + 4.0 / self.num_ranks)

    def refuse_without_room(self, cluster: Any) -> None:
        """Refuse a cluster whose nodes could not hold the ranks even if they were idle.

        Raises:
            ConfigError: the ranks do not fit, and the cluster file waits for no more nodes.
        """
        cluster.connect()
        if not cluster.wait_for_nodes and not self.fits(self.bundle(cluster)):
            raise self.no_room(self.bundle(cluster))

    def bundle(self, cluster: Any) -> dict[str, float]:
        """What a rank asks of Ray."""
        gpus = cluster.gpus_of_a_rank() if self.gpus_per_rank is None else self.gpus_per_rank
        return {"CPU": float(self.cpus_per_rank)} | ({"GPU": float(gpus)} if gpus else {})

    def bundles(self, cluster: Any) -> list[dict[str, float]]:
        """What all ranks ask of Ray, one entry for each rank."""
        return [self.bundle(cluster)] * self.num_ranks

    def fits(self, bundle: dict[str, float]) -> bool:
        """Whether the nodes that are there could hold all ranks, were they idle."""
        import ray

        room = 0
        for node in ray.nodes():
            if node["Alive"]:
                room += int(min(node["Resources"].get(n, 0) // value for n, value in bundle.items()))
        return room >= self.num_ranks

    def no_room(self, bundle: dict[str, float]) -> ConfigError:
        """The error for ranks that do not fit: what they want, and what the cluster has."""
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

    def workers(self, job: Job, cluster: Any, logs: Path) -> Gang:
        """The gang; ``cluster`` is the Ray cluster that it is started on."""
        return Gang(job=job, cluster=cluster, settings=self, logs=logs)
