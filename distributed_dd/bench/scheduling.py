"""`distributed-dd bench scheduling`: what it costs to hand out, store and verify many tiny experts."""

import json
import resource
import tempfile
import time
from dataclasses import replace
from typing import Any

import torch
from rich.table import Table

from distributed_dd.backends.local.cluster import InProcess
from distributed_dd.backends.local.console import ConsoleProgress
from distributed_dd.backends.local.terminal import terminal
from distributed_dd.backends.ray.cluster import RayCluster
from distributed_dd.backends.ray.local_nodes import local_nodes
from distributed_dd.bench.rounds import device_name
from distributed_dd.data import Images
from distributed_dd.learning.augment import Identity
from distributed_dd.learning.networks import MLP
from distributed_dd.methods.trajectory_matching.expert import ExpertJob, Experts
from distributed_dd.methods.trajectory_matching.experts import store_for, train_experts
from distributed_dd.outer.environment import versions

NUM_IMAGES, SIDE, NUM_CLASSES = 256, 8, 10


def main(as_json: bool, quick: bool) -> int:
    """Measure, print, return 0."""
    result = measure(50, 2) if quick else measure(1000, 4)
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        _print(result)
    return 0


def measure(num_experts: int, num_nodes: int, cpus_per_node: int = 1) -> dict[str, Any]:
    """Seconds of every phase of ``num_experts`` experts on a Ray of ``num_nodes`` raylets here.

    The same experts are also trained one after the other in this process, which says what they cost
    without Ray; what is left of the driver's processor time is what scheduling costs.
    """
    result: dict[str, Any] = {
        "device": device_name(),
        "versions": versions(),
        "num_experts": num_experts,
        "num_nodes": num_nodes,
        "cpus_per_node": cpus_per_node,
    }
    with tempfile.TemporaryDirectory() as folder:
        alone = _job(f"{folder}/alone", num_experts)
        result["in_process_seconds"] = _timed(alone, InProcess())["seconds"]
        started = time.monotonic()
        with local_nodes(num_nodes, cpus_per_node) as address:
            cluster = RayCluster(address=address, gpus_per_task=0.0)
            list(cluster.map(_nothing, list(range(4 * num_nodes)), None))
            result["start_seconds"] = round(time.monotonic() - started, 2)
            job = _job(f"{folder}/ray", num_experts)
            # A first few, so that every worker has imported what it needs.
            _timed(replace(job, recipe=replace(job.recipe, num_experts=4 * num_nodes)), cluster)
            first = 4 * num_nodes
            ray = _timed(job, cluster)
        result["experts_handed_out"] = num_experts - first
        result |= {f"ray_{name}": value for name, value in ray.items()}
        result["verify_and_list_seconds"] = _timed(job, InProcess())["seconds"]
        same = job.store.content_sha256 == alone.store.content_sha256
        result["same_content_as_in_process"] = same
    return result


def _nothing(task: Any, shared: Any) -> None:
    time.sleep(0.1)


def _job(root: str, num_experts: int) -> ExpertJob:
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(NUM_IMAGES, 1, SIDE, SIDE, generator=rng)
    data = Images(images, torch.randint(NUM_CLASSES, (NUM_IMAGES,), generator=rng))
    recipe = Experts(num_experts=num_experts, num_epochs=1, batch_size=NUM_IMAGES, augment=Identity())
    network = MLP(depth=1)
    store = store_for(root, recipe, network, {}, 0)
    return ExpertJob(
        recipe=recipe,
        network=network,
        seed=0,
        train=data,
        validation=data,
        num_classes=NUM_CLASSES,
        store=store,
        needed=(0.0, 1.0),
    )


def _timed(job: ExpertJob, cluster: Any) -> dict[str, Any]:
    """Wall seconds, the processor seconds of this process, and its peak resident bytes."""
    before, wall = time.process_time(), time.monotonic()
    train_experts(job, cluster, ConsoleProgress(to_stderr=True))
    return {
        "seconds": round(time.monotonic() - wall, 3),
        "driver_cpu_seconds": round(time.process_time() - before, 3),
        "driver_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _print(result: dict[str, Any]) -> None:
    count = result["experts_handed_out"]
    table = Table(
        "what",
        "value",
        title=f"{result['num_experts']} tiny experts on {result['num_nodes']} raylets, {result['device']}",
    )
    per_second = count / result["ray_seconds"]
    rows = {
        "start of the cluster and its workers": f"{result['start_seconds']:.1f} s",
        "experts a second, through Ray to the store": f"{per_second:.0f}",
        "experts a second, one after the other in this process": (
            f"{result['num_experts'] / result['in_process_seconds']:.0f}"
        ),
        "processor time of the driver for each expert": (f"{1000 * result['ray_driver_cpu_seconds'] / count:.2f} ms"),
        "memory of the driver, at most": f"{result['ray_driver_peak_bytes'] / 2**20:.0f} MiB",
        "verify and list the finished store": f"{result['verify_and_list_seconds']:.2f} s",
        "same content as without Ray": "yes" if result["same_content_as_in_process"] else "NO",
    }
    for what, value in rows.items():
        table.add_row(what, value)
    terminal().print(table)
