"""`distributed-dd bench kernel`: pairs of images a second of the kernels, compiled or not, in interleaved rounds.

A fully connected kernel stands against the matrix product that it cannot do without.
"""

import json
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table
from torch import Tensor

from distributed_dd.backends.local.terminal import terminal
from distributed_dd.bench.rounds import Times, ask, cold_compiler, device_name, serve, start, stop, timed_rounds
from distributed_dd.children import spawn_context
from distributed_dd.learning.chance import generator
from distributed_dd.learning.kernels import Convolutional, FullyConnected, Kernel
from distributed_dd.learning.kernels.blocks import kernel_matrix, pairs_within
from distributed_dd.outer.environment import versions

ROUNDS = 5
PASSES = ("forward", "forward and backward")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Images of which shape on either side, and what compares them.

    Attributes:
        block_bytes: at most so many a block.
    """

    name: str
    kernel: Kernel
    shape: tuple[int, int, int]
    rows: int
    columns: int
    block_bytes: int = 2**28

    def images(self) -> tuple[Tensor, Tensor]:
        """Both sides, on the accelerator where there is one; the second takes a gradient."""
        where = "cuda" if torch.cuda.is_available() else "cpu"
        x, y = (
            torch.randn(number, *self.shape, generator=generator(0, "bench", side)).to(where)
            for side, number in (("x", self.rows), ("y", self.columns))
        )
        return x, y.requires_grad_()


class Side:
    """One way to compute the matrix, with its gradient or without."""

    def __init__(self, problem: Problem, compiled: bool, backward: bool) -> None:
        self.problem, self.compiled, self.backward = problem, compiled, backward
        self.x, self.y = problem.images()
        self.block_pairs = pairs_within(problem.kernel, self.x, problem.block_bytes)

    def epoch(self) -> float:
        """The matrix once; its sum."""
        y = self.y if self.backward else self.y.detach()
        values = kernel_matrix(self.problem.kernel, self.x, y, block_pairs=self.block_pairs, compiled=self.compiled)
        total = values.sum()
        if self.backward:
            torch.autograd.grad(total, y)
        return total.item()


class Product:
    """The matrix products alone: one forward, one more for the gradient by a side."""

    def __init__(self, problem: Problem, backward: bool) -> None:
        x, y = problem.images()
        self.x_nd, self.y_md, self.backward = x.flatten(1), y.detach().flatten(1), backward

    def epoch(self) -> float:
        """The products once; 0."""
        values = self.x_nd @ self.y_md.T
        if self.backward:
            values.T @ self.x_nd
        return 0.0


def main(as_json: bool, quick: bool) -> int:
    """Measure, print, return 0."""
    result = measure(problems(quick, torch.cuda.is_available()), 2 if quick else ROUNDS)
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        _print(result)
    return 0


def problems(quick: bool, accelerator: bool) -> tuple[Problem, ...]:
    """What is measured."""
    many = 1 if quick else 16 if accelerator else 4
    dense = Problem(
        name="fc, 1 hidden, 28px", kernel=FullyConnected(), shape=(1, 28, 28), rows=250 * many, columns=25 * many
    )
    digits = Problem(name="2 blocks, 8px", kernel=Convolutional(blocks=(1, 1)), shape=(1, 8, 8), rows=50, columns=10)
    if quick:
        return dense, digits
    few = {"rows": 16 * many, "columns": 4}
    return (
        dense,
        digits,
        Problem(name="convnet, 28px", kernel=Convolutional(), shape=(1, 28, 28), **few),
        Problem(name="3 blocks, 32px", kernel=Convolutional(blocks=(1, 1, 1)), shape=(3, 32, 32), **few),
    )


def measure(chosen: tuple[Problem, ...], rounds: int) -> dict[str, Any]:
    """Pairs a second of every problem and side, and how they compare to the eager side."""
    say = terminal(stderr=True).print
    rows: list[dict[str, Any]] = []
    with cold_compiler():
        for problem in chosen:
            say(f"timing {problem.name} (the compiled sides compile first)")
            for backward in (False, True):
                rows += _rows(problem, backward, rounds)
    return {
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "rounds": rounds,
        "rows": rows,
    }


def build_side(side: str, problem: Problem, backward: bool) -> Side | Product:
    """One side of the benchmark."""
    if side == "matrix product":
        return Product(problem, backward)
    return Side(problem, side == "compiled", backward)


def _rows(problem: Problem, backward: bool, rounds: int) -> list[dict[str, Any]]:
    sides = ("eager", "matrix product" if isinstance(problem.kernel, FullyConnected) else "compiled")
    context, threads = spawn_context(), torch.get_num_threads()
    workers = {side: start(context, serve, (build_side, threads, True)) for side in sides}
    times = timed_rounds(
        {side: [worker] for side, worker in workers.items()},
        {side: (side, problem, backward) for side in sides},
        rounds,
    )
    totals = {
        side: ask(pipe, ("call", "epoch"))
        for side, (_, pipe) in workers.items()
        if side != "matrix product" and times[side].error is None
    }
    stop(list(workers.values()))
    head = {
        "problem": problem.name,
        "kernel": asdict(problem.kernel),  # type: ignore[call-overload]
        "entries_per_pair": problem.kernel.pairs_cost(problem.shape),
        "pairs": problem.rows * problem.columns,
        "pass": PASSES[backward],
    }
    return [head | speed_row(side, head["pairs"], times, totals) for side in sides]


def speed_row(side: str, num_pairs: int, times: dict[str, Times], totals: dict[str, Any]) -> dict[str, Any]:
    """Pairs a second and the time as a share of the eager side's in the same round; or why there are none."""
    own = times[side]
    if own.error is not None:
        return {"side": side, "error": str(own.error)}
    shares = [a / b for a, b in zip(own.rounds, times["eager"].rounds, strict=False)]
    row = {
        "side": side,
        "pairs_per_second": num_pairs / median(own.rounds),
        "ratio_to_eager": median(shares) if shares else None,
        "first_seconds": own.first,
    }
    if side in totals and "eager" in totals:
        row["error_of_sum"] = abs(totals[side] / totals["eager"] - 1)
    return row


def _print(result: dict[str, Any]) -> None:
    title = f"{result['device']}, {result['threads']} threads, median of {result['rounds']} interleaved rounds"
    columns = ("problem", "pass", Column("side", no_wrap=True), "pairs/s", "ratio", "first, s", "error")
    caption = "ratio: time to the eager side's; first: the first call, compilation included; error: of the sum"
    table = Table(*columns, title=title, caption=caption, box=SIMPLE_HEAD)
    for row in result["rows"]:
        head = (row["problem"], row["pass"], row["side"])
        if "error" in row:
            table.add_row(*head, str(row["error"])[:40])
            continue
        ratio, error = row["ratio_to_eager"], row.get("error_of_sum")
        table.add_row(
            *head,
            f"{row['pairs_per_second']:,.0f}",
            "" if ratio is None else f"{ratio:.2f}",
            f"{row['first_seconds']:.1f}",
            "" if error is None else f"{error:.0e}",
        )
    terminal().print(table)
