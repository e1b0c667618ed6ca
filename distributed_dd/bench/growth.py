"""`distributed-dd bench growth`: what an outer step, a checkpoint and a comparison cost as their sizes grow.

One size grows at a time, by factors of at most ten. What costs more than its share is named: that would be felt first
where somebody goes further than was measured.
"""

import contextlib
import io
import json
import tempfile
import time
import tracemalloc
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from math import log
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from distributed_dd.backends.local.terminal import terminal
from distributed_dd.bench.rounds import device_name, synchronize
from distributed_dd.commands.report import report
from distributed_dd.durable import sha256_of, write_lines
from distributed_dd.evaluation.comparison import KIND as REPORT
from distributed_dd.learning.chance import generator
from distributed_dd.learning.flat import Student, flatten
from distributed_dd.learning.networks import ConvNet, initialised
from distributed_dd.methods import METHODS
from distributed_dd.outer.checkpoint import KEPT, Checkpoints
from distributed_dd.outer.environment import versions
from distributed_dd.outer.live_bytes import peak_live_bytes
from distributed_dd.records import write_record
from distributed_dd.unroll.public import matching_gradient

ROUNDS = 3
SHAPE, BATCH, STEPS, CLASSES, IMAGES = (1, 16, 16), 20, 5, 10, 1000
LINEAR = 1.1
"""Up to this power of its size, something grows no faster than its size."""


@dataclass(frozen=True)
class Cost:
    """What one call took: seconds, bytes of memory at its peak, bytes on disk where it writes any."""

    seconds: float
    peak_bytes: int
    disk_bytes: int = 0


Call = Callable[[], int]
"""What is timed; returns the bytes that it left on disk."""
Prepare = Callable[[int], AbstractContextManager[Call]]
"""Prepares a size, and cleans up after it."""


@contextmanager
def outer_step(*, student_steps: int = STEPS, images: int = IMAGES, classes: int = CLASSES) -> Iterator[Call]:
    """Loss and gradients of trajectory matching, replayed."""
    rng = generator(0, "bench growth")
    network = initialised(ConvNet(depth=2, width=16), SHAPE, classes, rng)
    student, start = Student(network), flatten(network)
    target = start + 0.01 * torch.randn(start.shape, generator=rng)
    x, labels = torch.randn(images, *SHAPE, generator=rng), torch.randn(images, classes, generator=rng)
    batches = [torch.randint(images, (BATCH,), generator=rng) for _ in range(student_steps)]

    def step() -> int:
        matching_gradient(student, start, target, x, labels, 0.01, batches)
        return 0

    yield step


@contextmanager
def checkpoint(images: int) -> Iterator[Call]:
    """A set with its momenta and labels for ten classes, written, and read back with its checks."""
    rng = generator(0, "bench growth")
    x, labels = torch.randn(images, *SHAPE, generator=rng), torch.randn(images, CLASSES, generator=rng)
    tensors = {"images": x, "momentum.images": x * 2, "labels": labels, "classes": torch.arange(images) % CLASSES}
    with tempfile.TemporaryDirectory() as folder:

        def written_and_read() -> int:
            kept = Checkpoints(Path(folder), "bench")
            shard = kept.write_shard(1, 0, 1, 0, tensors)
            kept.commit(1, {which: [shard] for which in KEPT}, {})
            assert kept.load() is not None
            return sum(path.stat().st_size for path in Path(folder).iterdir())

        yield written_and_read


@contextmanager
def comparison(runs: int) -> Iterator[Call]:
    """`distributed-dd report` of folders of finished runs, each of a hundred outer steps: table, CSV, plots."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(runs):
            _finished_run(Path(folder) / f"run-{number:04d}", number)

        def compared() -> int:
            with contextlib.redirect_stdout(io.StringIO()):
                report(Namespace(paths=[Path(folder)], to=Path(folder) / "comparison"))
            return sum(path.stat().st_size for path in (Path(folder) / "comparison").iterdir())

        yield compared


def _finished_run(folder: Path, number: int) -> None:
    folder.mkdir()
    lines = (json.dumps({"step": step, "matching_loss": 1 / (step + 1)}) + "\n" for step in range(100))
    write_lines(folder / "metrics.jsonl", lines)
    row = {"accuracy_mean": 0.5, "accuracy_std": 0.1, "accuracies": [0.4, 0.5, 0.6], "num_networks": 3}
    names = ("distilled", "starting_set", "random_real", "kmeans", "full_data")
    values = {
        "dataset": f"data-{number % 7}",
        "method": f"method-{number % 11}",
        "kind": next(iter(METHODS.members)),
        "images_per_class": 1 + number % 3,
        "best_step": 100,
        "num_test": 100,
        "metrics_sha256": sha256_of(folder / "metrics.jsonl"),
        "rows": [{"name": name, "network": "convnet", "labels": "soft", **row} for name in names],
    }
    write_record(folder / "report.json", REPORT, "bench", values)


SERIES: tuple[tuple[str, str, Prepare, tuple[int, ...]], ...] = (
    ("outer step", "student steps", lambda size: outer_step(student_steps=size), (10, 100, 1000)),
    ("outer step", "images", lambda size: outer_step(images=size), (100, 1000, 10_000)),
    ("outer step", "classes", lambda size: outer_step(classes=size), (10, 100, 1000)),
    ("checkpoint", "images", checkpoint, (100, 1000, 10_000)),
    ("comparison", "runs", comparison, (10, 100, 1000)),
)
"""What is measured, what grows, what prepares a size, and the sizes."""


def main(as_json: bool, quick: bool) -> int:
    """Measure, print, return 0."""
    result = measure(quick)
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        _print(result)
    return 0


def measure(quick: bool) -> dict[str, Any]:
    """Seconds and bytes of every size, and the power with which they grow."""
    say = terminal(stderr=True).print
    rows: list[dict[str, Any]] = []
    for name, grows, prepare, sizes in SERIES:
        say(f"timing {name} by {grows}")
        costs = [cost_of(prepare, size, 1 if quick else ROUNDS) for size in (sizes[:2] if quick else sizes)]
        rows += growth_rows(name, grows, sizes, costs)
    return {
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "rounds": 1 if quick else ROUNDS,
        "rows": rows,
    }


def cost_of(prepare: Prepare, size: int, rounds: int) -> Cost:
    """The median of some calls after a first, and the peak of one more."""
    with prepare(size) as call:
        disk_bytes, seconds = call(), []
        for _ in range(rounds):
            started = time.perf_counter()
            call()
            synchronize()
            seconds.append(time.perf_counter() - started)
        return Cost(median(seconds), _peak_bytes(call), disk_bytes)


def _peak_bytes(call: Call) -> int:
    """Tensors that lived at once, and what Python itself held."""
    peak_live_bytes(call)  # loads what is loaded once
    tracemalloc.start()
    try:
        tensors = peak_live_bytes(call)
        return tensors + tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def growth_rows(name: str, grows: str, sizes: tuple[int, ...], costs: list[Cost]) -> list[dict[str, Any]]:
    """A row for each size; from the second on with the power of the size that each cost grew by."""
    rows = []
    for number, (size, cost) in enumerate(zip(sizes, costs, strict=False)):
        row = {"what": name, "by": grows, "size": size, **vars(cost)}
        if number:
            ratio, before = log(size / sizes[number - 1]), costs[number - 1]
            row |= {
                f"power_of_{of}": log(getattr(cost, key) / getattr(before, key)) / ratio
                if getattr(before, key)
                else None
                for of, key in (("seconds", "seconds"), ("memory", "peak_bytes"), ("disk", "disk_bytes"))
            }
        rows.append(row)
    return rows


def above_linear(rows: list[dict[str, Any]]) -> list[str]:
    """What grew faster than its size, in words."""
    return [
        f"{of} of {row['what']} by {row['by']}, up to {row['size']:,}: power {row[f'power_of_{of}']:.2f}"
        for row in rows
        for of in ("seconds", "memory", "disk")
        if (row.get(f"power_of_{of}") or 0) > LINEAR
    ]


def _print(result: dict[str, Any]) -> None:
    title = f"{result['device']}, {result['threads']} threads, median of {result['rounds']}"
    caption = "power: 0 does not grow with the size, 1 grows as the size does"
    names = ("what", "by", "size", "ms", "power", "MiB", "power", "KiB on disk")
    table = Table(*(Column(name, no_wrap=True) for name in names), title=title, caption=caption, box=SIMPLE_HEAD)
    for row in result["rows"]:
        table.add_row(
            row["what"],
            row["by"],
            f"{row['size']:,}",
            f"{1000 * row['seconds']:.1f}",
            _power(row.get("power_of_seconds")),
            f"{row['peak_bytes'] / 2**20:.2f}",
            _power(row.get("power_of_memory")),
            f"{row['disk_bytes'] / 1024:,.0f}" if row["disk_bytes"] else "",
        )
    console = terminal()
    console.print(table)
    console.print("above linear: " + ("; ".join(above_linear(result["rows"])) or "nothing"))


def _power(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
