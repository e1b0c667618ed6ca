"""`distributed-dd bench machine`: what the device sustains, beside which all other figures stand.

Matrix products of square matrices, in the number formats that training uses, and copies in its own memory.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from rich.table import Table

from distributed_dd.backends.local.terminal import terminal
from distributed_dd.bench.rounds import device_name
from distributed_dd.outer.environment import versions

ROUNDS = 5
FORMATS = {"float32": torch.float32, "bf16": torch.bfloat16}
TF32 = "float32 (TF32)"


def main(as_json: bool, quick: bool) -> int:
    """Measure, print, return 0."""
    on_gpu = torch.cuda.is_available()
    side, num_bytes = (256, 2**22) if quick else (8192, 2**31) if on_gpu else (1024, 2**27)
    result = measure(side, num_bytes, 2 if quick else ROUNDS)
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        _print(result)
    return 0


def measure(side: int, num_bytes: int, rounds: int) -> dict[str, Any]:
    """The best of ``rounds`` of each: the device's own speed, which neighbours can only lower.

    Args:
        side: rows and columns of the matrices. num_bytes: of what is copied.
    """
    where = "cuda" if torch.cuda.is_available() else "cpu"
    rows: list[dict[str, Any]] = []
    for name in [*FORMATS, TF32] if where == "cuda" else [*FORMATS]:
        a, b = (torch.randn(side, side, device=where).to(FORMATS.get(name, torch.float32)) for _ in range(2))
        with _tf32(name == TF32):
            seconds = _best(lambda a=a, b=b: a @ b, rounds)  # type: ignore[misc]
        rows.append({"measured": f"matrix product, {name}", "value": 2 * side**3 / seconds / 1e12, "unit": "TFLOP/s"})
    source = torch.empty(num_bytes, dtype=torch.uint8, device=where).fill_(1)
    target = torch.empty_like(source)
    seconds = _best(lambda: target.copy_(source), rounds)
    rows.append(
        {"measured": "copy in memory, read and written", "value": 2 * num_bytes / seconds / 1e9, "unit": "GB/s"}
    )
    return {
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "side": side,
        "copied_bytes": num_bytes,
        "rows": rows,
    }


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _best(function: Callable[[], Any], rounds: int, calls: int = 10) -> float:
    """Seconds of one call."""
    function()  # chooses its code and touches its memory
    best = float("inf")
    for _ in range(rounds):
        _wait()
        started = time.perf_counter()
        for _ in range(calls):
            function()
        _wait()
        best = min(best, (time.perf_counter() - started) / calls)
    return best


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _print(result: dict[str, Any]) -> None:
    table = Table("measured", "value", "unit", title=f"{result['device']}, {result['threads']} threads")
    for row in result["rows"]:
        table.add_row(row["measured"], f"{row['value']:,.3g}", row["unit"])
    terminal().print(table)
