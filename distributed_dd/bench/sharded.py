"""`distributed-dd bench sharded`: time, memory and traffic of an outer step against the number of ranks."""

import gc
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distributed_dd.backends.deepspeed.engine import DeepSpeedRanks
from distributed_dd.backends.deepspeed.learner import DeepSpeedLearner
from distributed_dd.backends.deepspeed.tools import DeepSpeedTools
from distributed_dd.backends.deepspeed.torch_ranks import TorchRanks
from distributed_dd.backends.deepspeed.traffic import deepspeed_traffic
from distributed_dd.backends.deepspeed.zero import Zero
from distributed_dd.backends.local.learner import LocalLearner
from distributed_dd.backends.local.terminal import terminal
from distributed_dd.backends.ray.cluster import RayCluster
from distributed_dd.backends.ray.gang import Gang
from distributed_dd.bench.rounds import device_name
from distributed_dd.bench.sharded_tables import print_tables
from distributed_dd.data.whitening import Standardise
from distributed_dd.evaluation.settings import Evaluation
from distributed_dd.learning.device import device
from distributed_dd.learning.networks import ConvNet, Network, ResNet18
from distributed_dd.learning.update_rules import SGD
from distributed_dd.methods.trajectory_matching.expert import Experts
from distributed_dd.methods.trajectory_matching.labels import ExpertEnsemble
from distributed_dd.methods.trajectory_matching.method import TrajectoryMatching
from distributed_dd.methods.trajectory_matching.segments import Window
from distributed_dd.outer.checkpoint import Checkpoints, Shard
from distributed_dd.outer.environment import versions
from distributed_dd.outer.learner import Learner
from distributed_dd.outer.live_bytes import LiveBytes
from distributed_dd.outer.set_worker import SetJob, SetWorker
from distributed_dd.outer.world import World

SHARDINGS = {"ZeRO 0": Zero(0), "ZeRO 1": Zero(1), "ZeRO 2": Zero(2), "ZeRO 3": Zero(3), "own rows": Zero(0, True)}
NUM_CLASSES, SIDE = 10, 32


@dataclass(frozen=True, kw_only=True)
class Size:
    """An outer step: network, images in the set, student steps, batch."""

    name: str
    network: Network
    num_images: int
    steps: int
    batch: int


STEP = Size(
    name="convnet 3 x 64, batch 64, 4 student steps", network=ConvNet(width=64), num_images=100, steps=4, batch=64
)
DEEP = Size(
    name="resnet18 of width 8, batch 8, 80 student steps", network=ResNet18(width=8), num_images=100, steps=80, batch=8
)
QUICK_STEP = Size(
    name="convnet 3 x 8, batch 16, 4 student steps", network=ConvNet(width=8), num_images=20, steps=4, batch=16
)
QUICK_DEEP = Size(
    name="resnet18 of width 2, batch 4, 12 student steps", network=ResNet18(width=2), num_images=20, steps=12, batch=4
)
ROUNDS = 5


def main(as_json: bool, quick: bool) -> int:
    """Measure, print, return 0."""
    arguments = (400, QUICK_STEP, QUICK_DEEP, (1, 2), 2) if quick else (20_000, STEP, DEEP, (1, 2, 4), ROUNDS)
    result = measure(*arguments)
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        print_tables(result)
    return 0


def measure(set_size: int, step: Size, deep: Size, numbers: Sequence[int], rounds: int) -> dict[str, Any]:
    """Everything, per number of ranks; gangs live one after the other."""
    result: dict[str, Any] = {
        "device": device_name(),
        "versions": versions(),
        "set_images": set_size,
        "set_bytes": set_size * (3 * SIDE * SIDE + NUM_CLASSES) * 4,
        "step": _described(step),
        "deep": _described(deep),
        "set": [],
        "steps": [],
        "stored": [],
        "spares": [],
    }
    tell = terminal(stderr=True).print
    with tempfile.TemporaryDirectory() as folder:
        places = {name: Path(folder) / name for name in ("set", "step", "deep")}
        shards = {"set": _random_set(places["set"], set_size)}
        for name, what in (("step", step), ("deep", deep)):
            shards[name] = _random_set(places[name], what.num_images)
        result["set"].append(_alone(places["set"], shards["set"]))
        for num_ranks in numbers:
            tell(f"{num_ranks} ranks")
            gang = _gang(num_ranks, max(numbers))
            gang.gather()
            try:
                for name, zero in SHARDINGS.items():
                    answers = gang.call(set_memory, zero, places["set"], shards["set"])
                    result["set"].append({"ranks": num_ranks, "sharding": name, **_most(answers)})
                    answers = gang.call(outer_step, zero, places["step"], shards["step"], step, rounds)
                    result["steps"].append({"ranks": num_ranks, "sharding": name, **_most(answers)})
                    if num_ranks > 1:
                        answers = gang.call(handed_over, zero, places["set"], shards["set"], step, rounds)
                        result["spares"].append({"ranks": num_ranks, "sharding": name, **_most(answers)})
                for place in ("device", "spread") if num_ranks > 1 else ("device",):
                    answers = gang.call(stored_bytes, place, places["deep"], shards["deep"], deep)
                    result["stored"].append({"ranks": num_ranks, "stored": place, **_most(answers)})
            finally:
                gang.stop()
    return result


def _gang(num_ranks: int, num_cpus: int) -> Gang:
    """Ranks without a job, on a local Ray."""
    settings = DeepSpeedRanks(num_ranks=num_ranks)
    return Gang(job=None, cluster=RayCluster(num_cpus=num_cpus), settings=settings, logs=None)


def _described(size: Size) -> dict[str, Any]:
    network = size.network.build((3, SIDE, SIDE), NUM_CLASSES)
    return {**asdict(size), "num_parameters": sum(p.numel() for p in network.parameters())}


def _most(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """The largest number of any rank."""
    return {name: max(answer[name] for answer in answers) for name in answers[0]}


def _random_set(folder: Path, num_images: int) -> list[Shard]:
    rng = torch.Generator().manual_seed(0)
    tensors = {
        "images": torch.randn(num_images, 3, SIDE, SIDE, generator=rng),
        "labels": torch.randn(num_images, NUM_CLASSES, generator=rng),
        "classes": torch.arange(NUM_CLASSES).repeat_interleave(num_images // NUM_CLASSES),
        "learning_rate": torch.tensor(0.01),
    }
    return [Checkpoints(folder, "bench").write_shard(0, 0, 1, 0, tensors)]


def _method(size: Size) -> TrajectoryMatching:
    return TrajectoryMatching(
        image_optimizer=SGD(1.0, 0.5),
        rate_optimizer=SGD(1e-6, 0.5),
        segments=Window(2),
        student_steps=size.steps,
        expert_epochs=1,
        batch_size=size.batch,
        gate=None,
        labels=ExpertEnsemble(),
        experts=Experts(num_experts=1),
    )


class _RandomExperts:
    """A store whose experts take a random step an epoch."""

    def __init__(self, network: Network) -> None:
        torch.manual_seed(0)
        layers = network.build((3, SIDE, SIDE), NUM_CLASSES)
        self._start = torch.cat([p.detach().flatten() for p in layers.parameters()])

    def open(self, expert: int) -> "_RandomExperts":
        return self

    def checkpoint(self, epoch: float) -> Tensor:
        return self._start + 0.001 * (1 + epoch)


def _alone(folder: Path, shards: list[Shard]) -> dict[str, Any]:
    """The set in this process, without DeepSpeed."""
    saved = Checkpoints(folder, "bench").saved(shards)
    footprint = _footprint(lambda: LocalLearner(saved, _method(STEP).optimizers()))
    return {"ranks": 1, "sharding": "one process", **footprint}


def set_memory(rank: Any, zero: Zero, folder: Path, shards: list[Shard]) -> dict[str, Any]:
    """Bytes between updates and at most in one, of a rank that reads its rows and gets their gradients."""
    ranks, saved = _ranks(rank), Checkpoints(folder, "bench").saved(shards)
    return _footprint(lambda: DeepSpeedLearner(zero, ranks, saved, _method(STEP).optimizers()))


def _update(learner: Learner) -> None:
    """One update with gradients of zero."""
    held = learner.read()
    learner.step({name: torch.zeros_like(tensor) for name, tensor in held.tensors.items()})


def _footprint(make: Callable[[], Learner]) -> dict[str, Any]:
    gc.collect()
    with LiveBytes() as counter:
        learner = make()
        _update(learner)
        gc.collect()
        idle = counter.now
        counter.from_now_on()
        started = time.monotonic()
        _update(learner)
        seconds = time.monotonic() - started
        peak = counter.peak
        learner.close()
        del learner
        gc.collect()
    return {"idle_bytes": idle, "peak_bytes": peak, "seconds": round(seconds, 3)}


def _ranks(rank: Any) -> TorchRanks:
    """All ranks of the gang on one student batch."""
    return rank.ranks


def _worker(ranks: TorchRanks, zero: Zero, place: Any, folder: Path, shards: list[Shard], size: Size) -> SetWorker:
    checkpoints, method = Checkpoints(folder, "bench"), _method(size)
    world = World(
        seed=0,
        network=size.network,
        image_shape=(3, SIDE, SIDE),
        num_classes=NUM_CLASSES,
        images_per_class=size.num_images // NUM_CLASSES,
        num_outer_steps=1,
        preprocessing=Standardise(),
        evaluate=Evaluation(),
        output=folder,
        real=None,
        shared=_RandomExperts(size.network),
    )
    return SetJob(method, world, checkpoints).worker(checkpoints.saved(shards), DeepSpeedTools(zero, place, ranks))


def outer_step(rank: Any, zero: Zero, folder: Path, shards: list[Shard], size: Size, rounds: int) -> dict[str, Any]:
    """Seconds of an outer step, bytes at most in one, and what it sent."""
    ranks = _ranks(rank)
    worker = _worker(ranks, zero, "device", folder, shards, size)
    worker.outer_step(0)
    seconds = []
    for step in range(1, rounds + 1):
        ranks.sum(torch.zeros(1, device=device()))  # all begin together
        started = time.monotonic()
        worker.outer_step(step)
        seconds.append(time.monotonic() - started)
    ranks.calls.clear()
    ranks.num_bytes.clear()
    with deepspeed_traffic() as traffic, LiveBytes() as counter:
        worker.outer_step(rounds + 1)
    worker.learner.close()
    return {
        "seconds": round(sorted(seconds)[len(seconds) // 2], 4),
        "peak_bytes": counter.peak,
        "sum_calls": ranks.calls["sum in group"],
        "sum_bytes": ranks.num_bytes["sum in group"],
        "row_calls": ranks.calls["rows"],
        "row_bytes": ranks.num_bytes["rows"],
        "deepspeed_calls": traffic.calls,
        "deepspeed_bytes": traffic.num_bytes,
    }


def stored_bytes(rank: Any, place: Any, folder: Path, shards: list[Shard], size: Size) -> dict[str, Any]:
    """Bytes at most in an outer step of a deep unroll, and its seconds."""
    worker = _worker(_ranks(rank), Zero(0), place, folder, shards, size)
    with LiveBytes() as counter:
        started = time.monotonic()
        rate = worker.outer_step(0)["student_learning_rate"]
        seconds = time.monotonic() - started
    worker.learner.close()
    return {"peak_bytes": counter.peak, "seconds": round(seconds, 2), "learning_rate": rate}


def handed_over(rank: Any, zero: Zero, folder: Path, shards: list[Shard], size: Size, rounds: int) -> dict[str, Any]:
    """Seconds in which a rank packs what it would save and its peer has a copy; bytes of it."""
    rank.worker = _worker(_ranks(rank), zero, "device", folder, shards, size)
    seconds = []
    for step in range(1, rounds + 2):
        _ranks(rank).sum(torch.zeros(1, device=device()))  # all begin together
        started = time.monotonic()
        rank.hand_over(step)
        seconds.append(time.monotonic() - started)
    (spare, *_) = rank.spares.held[rank.rank].values()
    rank.worker.learner.close()
    rank.spares.clear()
    return {"seconds": round(sorted(seconds[1:])[rounds // 2], 4), "bytes": spare.num_bytes}
