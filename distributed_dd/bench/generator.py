"""`distributed-dd bench generator`: an outer step on a generator with its pool, against the usual loop."""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from distributed_dd.backends.local.cluster import InProcess
from distributed_dd.backends.local.engine import Local, LocalWorkers
from distributed_dd.backends.local.terminal import terminal
from distributed_dd.backends.ray.cluster import RayCluster
from distributed_dd.backends.ray.connection import is_installed
from distributed_dd.bench.plain_gan import Pictures, PlainLoop, with_torchs_norm
from distributed_dd.bench.rounds import device_name
from distributed_dd.data import Images
from distributed_dd.data.whitening import Standardise
from distributed_dd.learning.augment import Identity
from distributed_dd.learning.chance import generator
from distributed_dd.learning.networks import ConvNet, initialised
from distributed_dd.learning.networks.discriminator import ConvDiscriminator
from distributed_dd.learning.networks.generator import ConvGenerator
from distributed_dd.methods.generative.method import Generative
from distributed_dd.methods.generative.pool import PoolJob
from distributed_dd.methods.generative.pool_settings import Pool
from distributed_dd.methods.generative.steps import GenerativeJob
from distributed_dd.outer.checkpoint import Checkpoints
from distributed_dd.outer.environment import versions

NUM_IMAGES, NUM_CLASSES, SHAPE, NOISE = 5000, 10, (1, 32, 32), 64
LOADER_WORKERS = 4


@dataclass(frozen=True)
class Size:
    """One problem."""

    width: int
    net_steps: int
    batch_size: int = 64

    def __str__(self) -> str:
        return f"width {self.width}, {self.net_steps} steps of the judge"


def main(as_json: bool, quick: bool) -> int:
    """Measure, print, return 0."""
    sizes = [Size(8, 2, 16)] if quick else [Size(32, 4), Size(32, 16)]
    result = {"device": device_name(), "threads": torch.get_num_threads(), "versions": versions()}
    result["rows"] = [measure(size, 1 if quick else 3, 2 if quick else 8) for size in sizes]
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        _print(result)
    return 0


def measure(size: Size, num_rounds: int, num_steps: int) -> dict[str, Any]:
    """Seconds per outer step of each side, its rounds taken in turn with the others'."""
    with tempfile.TemporaryDirectory() as folder:
        sides: dict[str, Callable[[int], None]] = {
            "usual loop": _usual(size),
            "one process": _ours(size, InProcess(), Path(folder) / "here"),
        }
        if is_installed():
            sides["pool ahead on Ray"] = _ours(size, RayCluster(gpus_per_task=None), Path(folder) / "ray")
        else:
            terminal(stderr=True).print("note: Ray is not installed here: no side makes the pool ahead")
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        threads = torch.get_num_threads()
        for number in range(num_rounds + 1):  # the first is not counted
            for name, run in sides.items():
                # What is made ahead leaves its core to tasks, as a run does.
                torch.set_num_threads(max(1, threads - 1) if "Ray" in name else threads)
                started = time.monotonic()
                run(num_steps)
                if number:
                    seconds[name].append((time.monotonic() - started) / num_steps)
        torch.set_num_threads(threads)
    return {
        "size": str(size),
        "batch_size": size.batch_size,
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
    }


def _networks(size: Size) -> tuple[torch.nn.Module, torch.nn.Module, torch.nn.Module]:
    members = ConvGenerator(size.width, NOISE), ConvDiscriminator(size.width), ConvNet(width=size.width)
    layers = [initialised(member, SHAPE, NUM_CLASSES, generator(0, "bench")) for member in members]
    return layers[0], layers[1], layers[2]


def _images() -> Images:
    rng = generator(0, "bench images")
    pictures = torch.randint(256, (NUM_IMAGES, *SHAPE), generator=rng, dtype=torch.uint8)
    return Images(pictures, torch.arange(NUM_IMAGES) % NUM_CLASSES)


def _usual(size: Size) -> Callable[[int], None]:
    generator_layers, discriminator, judge = _networks(size)
    data = _images()
    loop = PlainLoop(
        with_torchs_norm(generator_layers),
        discriminator,
        judge,
        Pictures(data.images, data.targets),
        size.batch_size,
        size.net_steps,
        NOISE,
        NUM_CLASSES,
        LOADER_WORKERS,
    )

    def run(num_steps: int) -> None:
        for _ in range(num_steps):
            loop.step()

    return run


def _ours(size: Size, cluster: Any, folder: Path) -> Callable[[int], None]:
    data = _images()
    fitted = Standardise().fit(data.pixels())
    pool = Pool(
        networks=(ConvNet(width=size.width),),
        steps_per_network=10**6,
        net_steps=size.net_steps,
        batch_size=size.batch_size,
        augment=Identity(),
    )
    method = Generative(
        generator=ConvGenerator(size.width, NOISE),
        discriminator=ConvDiscriminator(size.width),
        batch_size=size.batch_size,
        local_weight=0.0,
        pool=pool,
        augment=Identity(),
    )
    judged = PoolJob(
        pool=pool, seed=0, train=Images(fitted.apply(data.pixels()), data.targets), num_classes=NUM_CLASSES, span=4
    )
    checkpoints = Checkpoints(folder, "bench")
    job = GenerativeJob(
        method=method,
        phase=method.phase("distil"),
        seed=0,
        real=data,
        fitted=fitted,
        pool=judged,
        image_shape=SHAPE,
        num_classes=NUM_CLASSES,
        checkpoints=checkpoints,
    )
    shard = checkpoints.write_shard(0, 0, 1, 0, job.starting())
    checkpoints.commit(0, {"newest": [shard], "best": [], "start": [shard]}, {})
    workers = LocalWorkers(job=job, cluster=cluster, settings=Local())
    workers.start()
    reached = [0]

    def run(num_steps: int) -> None:
        for _ in workers.outer_steps(reached[0], reached[0] + num_steps):
            reached[0] += 1

    return run


def _print(result: dict[str, Any]) -> None:
    names = list(result["rows"][0]["seconds"])
    table = Table("seconds per outer step (ratio)", *names, title=result["device"], title_justify="left")
    for row in result["rows"]:
        usual = row["seconds"]["usual loop"]
        cells = [f"{value:.3f} ({usual / value:.2f}x)" for value in row["seconds"].values()]
        table.add_row(f"{row['size']}, batch {row['batch_size']}", *cells)
    terminal().print(table)
