"""`distributed-dd bench unroll`: the replayed unroll against the usual loop, in interleaved rounds."""

import json
from statistics import median
from typing import Any

import numpy
import torch
from rich.table import Column, Table

from distributed_dd.backends.local.terminal import terminal
from distributed_dd.bench.rounds import ask, device_name, receive, start, stop
from distributed_dd.bench.sides import SIDES, Size, serve, serve_memory, with_exact_malloc
from distributed_dd.children import spawn_context
from distributed_dd.outer.environment import versions

TIMED = (Size(10, 10), Size(50, 4), Size(50, 10), Size(100, 4))
MEMORY = (Size(10, 10), Size(10, 80))
QUICK_TIMED = (Size(10, 4, width=16, side=16),)
QUICK_MEMORY = (Size(10, 5, width=16, side=16), Size(10, 20, width=16, side=16))
ROUNDS = 5


def main(as_json: bool, quick: bool) -> int:
    """Measure, print, return 0."""
    result = measure(QUICK_TIMED if quick else TIMED, QUICK_MEMORY if quick else MEMORY, ROUNDS)
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        _print(result)
    return 0


def measure(timed: tuple[Size, ...], memory: tuple[Size, ...], rounds: int) -> dict[str, Any]:
    """Seconds per outer step, ratios to the plain loop, gradient differences, peak bytes."""
    threads = torch.get_num_threads()
    context = spawn_context()
    result: dict[str, Any] = {
        "device": device_name(),
        "threads": threads,
        "versions": versions(),
        "rounds": rounds,
        "times": [],
        "memory": [],
    }
    tell = terminal(stderr=True).print
    workers = {side: start(context, serve, (side, threads)) for side in SIDES}
    for size in timed:
        tell(f"timing batch {size.batch}, {size.steps} student steps (the compiled sides compile first)")
        gradients = {side: ask(pipe, ("prepare", size)) for side, (_, pipe) in workers.items()}
        seconds: dict[str, list[float]] = {side: [] for side in SIDES}
        for _ in range(rounds):
            # Side after side within a round: what the neighbours do falls on all alike.
            for side, (_, pipe) in workers.items():
                answer = ask(pipe, ("time", None))
                if isinstance(answer, float):
                    seconds[side].append(answer)
        for side in SIDES:
            result["times"].append(_time_row(side, size, seconds, gradients))
    stop(list(workers.values()))
    for side in [side for side in SIDES if "kept" not in side]:  # what is kept would count as used
        tell(f"memory of {side}")
        result["memory"] += _memory_rows(context, side, memory, threads)
    return result


def _time_row(side: str, size: Size, seconds: dict, gradients: dict) -> dict[str, Any]:
    row: dict[str, Any] = {"side": side, "batch": size.batch, "steps": size.steps}
    if not seconds[side]:
        return {**row, "error": gradients[side]}
    ratios = [a / b for a, b in zip(seconds[side], seconds["plain"], strict=False)]
    ours, theirs = gradients[side][1].ravel(), gradients["plain"][1].ravel()
    cosine = float(ours @ theirs / (numpy.linalg.norm(ours) * numpy.linalg.norm(theirs)))
    error = float(numpy.linalg.norm(ours - theirs) / numpy.linalg.norm(theirs))
    return {
        **row,
        "seconds": median(seconds[side]),
        "ratio_to_plain": median(ratios),
        "image_gradient_error": error,
        "image_gradient_cosine": cosine,
    }


def _memory_rows(context: Any, side: str, sizes: tuple[Size, ...], threads: int) -> list[dict[str, Any]]:
    started: list[Any] = []
    with_exact_malloc(lambda: started.append(start(context, serve_memory, (side, threads, list(sizes)))))
    process, pipe = started[0]
    rows = []
    for size in sizes:
        answer = receive(pipe)
        key = "peak_bytes" if isinstance(answer, int) else "error"
        rows.append({"side": side, "batch": size.batch, "steps": size.steps, key: answer})
    process.join()
    return rows


def _print(result: dict[str, Any]) -> None:
    console = terminal()
    title = f"{result['device']}, {result['threads']} threads, median of {result['rounds']} interleaved rounds"
    columns = ("batch", "steps", Column("side", no_wrap=True), "s / outer step", "ratio", "error", "cosine")
    table = Table(*columns, title=title, caption="ratio to plain; error and cosine of the image gradient")
    for row in result["times"]:
        head = (str(row["batch"]), str(row["steps"]), row["side"])
        if "error" in row:
            table.add_row(*head, str(row["error"])[:40])
            continue
        table.add_row(
            *head,
            f"{row['seconds']:.3f}",
            f"{row['ratio_to_plain']:.2f}",
            f"{row['image_gradient_error']:.1e}",
            f"{row['image_gradient_cosine']:.4f}",
        )
    console.print(table)
    table = Table("side", "batch", "steps", "peak, MiB", title="memory beyond the stored parameters")
    for row in result["memory"]:
        value = f"{row['peak_bytes'] / 2**20:.0f}" if "peak_bytes" in row else str(row["error"])[:40]
        table.add_row(row["side"], str(row["batch"]), str(row["steps"]), value)
    console.print(table)
