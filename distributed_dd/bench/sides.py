"""The sides of the unroll benchmark, each run in a process of its own."""

import gc
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from distributed_dd.allocator import keep_freed_memory
from distributed_dd.outer.footprint import current_bytes, peak_bytes, reset_peak

SIDES = (
    "plain",
    "plain, memory kept",
    "direct",
    "replayed",
    "replayed, steps kept",
    "replayed compiled",
    "replayed compiled bf16",
)

EVERYTHING = 2**50
"""Bytes in which every student step is kept."""


@dataclass(frozen=True)
class Size:
    """One problem: synthetic images per student step, and student steps."""

    batch: int
    steps: int
    width: int = 128
    side: int = 32


def outer_step(side: str, size: Size) -> tuple[Callable[[], tuple[Tensor, ...]], int]:
    """A function making one outer step of ``side`` (loss and three gradients), and P."""
    from distributed_dd.bench.plain_loop import plain_matching_gradient
    from distributed_dd.learning.augment import _unchanged
    from distributed_dd.learning.flat import Student, flatten
    from distributed_dd.learning.networks import ConvNet
    from distributed_dd.unroll import At, Direct, Matching, Problem, Replayed, Whole

    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    network = ConvNet(depth=3, width=size.width).build((3, size.side, size.side), 10).to(where)
    start = flatten(network)
    target = start + 0.01 * torch.randn_like(start)
    images = torch.randn(size.batch, 3, size.side, size.side, device=where)
    labels = torch.randn(size.batch, 10, device=where)
    batches = [torch.randperm(size.batch).to(where) for _ in range(size.steps)]
    if side.startswith("plain"):
        arguments = (network, start, target, images, labels, 0.01, batches)
        return lambda: plain_matching_gradient(*arguments), len(start)
    student = Student(network, "bf16" if "bf16" in side else "float32").to(where, torch.float32)
    unroll = (
        Direct() if side == "direct" else Replayed("compiled" in side, memory=EVERYTHING if "kept" in side else None)
    )
    rate = torch.tensor(0.01, device=where)

    def step() -> tuple[Tensor, ...]:
        rows = Whole((images, labels), batches)
        problem = Problem(
            student=student,
            theta_start_P=start,
            ends=At({size.steps: Matching.between(start, target)}),
            rows=rows,
            learning_rate=rate,
            augment=[_unchanged] * size.steps,
        )
        result = unroll(problem)
        return result.loss, result.images, result.labels, result.learning_rate

    return step, len(start)


def serve(pipe: Connection, side: str, threads: int) -> None:
    """Answer the parent's questions until it sends None: prepare a size, time a step, its gradient."""
    torch.set_num_threads(threads)
    if side.startswith("replayed") or "memory kept" in side:
        keep_freed_memory()  # as the program does when it starts
    step: Callable[[], tuple[Tensor, ...]] | None = None
    while (question := pipe.recv()) is not None:
        what, argument = question
        try:
            if what == "prepare":
                step, _ = outer_step(side, argument)
                pipe.send([t.cpu().numpy() for t in step()])
            else:
                assert step is not None
                pipe.send(_seconds(step))
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


def _seconds(step: Callable[[], Any]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def serve_memory(pipe: Connection, side: str, threads: int, sizes: list[Size]) -> None:
    """Peak bytes of one outer step beyond what was there before, the stored theta_t taken off."""
    torch.set_num_threads(threads)
    for size in sizes:
        try:
            step, num_parameters = outer_step(side, size)
            step()  # compiled and warmed up before it is measured
            gc.collect()
            reset_peak()
            before = current_bytes()
            step()
            peak = peak_bytes() - before
            stored = (size.steps + 1) * num_parameters * 4 if side.startswith("replayed") else 0
            pipe.send(max(peak - stored, 0))
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


# Freed memory goes back at once, so that the resident set says what is in use. Slow: not for timing.
EXACT_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}


def with_exact_malloc(start: Callable[[], None]) -> None:
    """Run ``start`` (which spawns a process) with the allocator settings above in the environment."""
    kept = {key: os.environ.get(key) for key in EXACT_MALLOC}
    os.environ.update(EXACT_MALLOC)
    try:
        start()
    finally:
        for key, value in kept.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
