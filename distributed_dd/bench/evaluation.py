"""`distributed-dd bench evaluation`: steps of a fresh network on a distilled set, as a report trains five for each row.

A set of one batch, with soft labels, the usual augmentations and rate. Beside what the program does by default stand
the same with torch's own average pooling, as it was before, and what ``evaluate.compile`` and ``evaluate.precision``
add.
"""

import copy
import json
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table
from torch import nn

from distributed_dd.backends.local.terminal import terminal
from distributed_dd.bench.rounds import Times, cold_compiler, device_name, serve, start, stop, timed_rounds
from distributed_dd.children import spawn_context
from distributed_dd.learning.augment import Siamese
from distributed_dd.learning.chance import generator
from distributed_dd.learning.loop import Recipe, Training
from distributed_dd.learning.networks import ConvNet, initialised
from distributed_dd.learning.networks.pooling import AveragePool
from distributed_dd.learning.optimizers import SGD
from distributed_dd.outer.environment import versions

ROUNDS = 7
CLASSES = 10
SIDES: dict[str, dict[str, Any]] = {
    "torch's pooling": {},
    "default": {},
    "bf16": {"precision": "bf16"},
    "compiled": {"compile": True},
    "compiled, bf16": {"compile": True, "precision": "bf16"},
}
FIRST = "torch's pooling"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A set, the network that is trained on it, and how many steps a round takes."""

    name: str
    network: ConvNet
    shape: tuple[int, int, int]
    images: int
    steps: int


class Side:
    """One way to train the network."""

    def __init__(self, problem: Problem, side: str) -> None:
        where = "cuda" if torch.cuda.is_available() else "cpu"
        rng = generator(0, "bench evaluation")
        images = torch.randn(problem.images, *problem.shape, generator=rng).to(where)
        labels = torch.randn(problem.images, CLASSES, generator=rng).to(where)
        network = initialised(problem.network, problem.shape, CLASSES, rng).to(where)
        recipe = Recipe(
            batch_size=max(256, problem.images), optimizer=SGD(0.01, 0.9, 5e-4), augment=Siamese(), **SIDES[side]
        )
        pooled = with_torchs_pooling(network) if side == FIRST else network
        self.training, self.steps = Training(pooled, images, labels, recipe, (0, "bench")), problem.steps

    def epoch(self) -> float:
        """So many steps, each an epoch of a set that is one batch; the sum of the parameters."""
        for _ in range(self.steps):
            for _ in self.training.run_epoch():
                pass
        return self.training.theta_P.sum().item()


def with_torchs_pooling(network: nn.Module) -> nn.Module:
    """A copy that pools by torch."""
    network = copy.deepcopy(network)
    for module in network.modules():
        for name, layer in module.named_children():
            if isinstance(layer, AveragePool):
                setattr(module, name, nn.AvgPool2d(2))
    return network


def main(as_json: bool, quick: bool) -> int:
    """Measure, print, return 0."""
    result = measure(problems(quick), 2 if quick else ROUNDS)
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        _print(result)
    return 0


def problems(quick: bool) -> tuple[Problem, ...]:
    """Sets of ten images per class, and of one."""
    small = ConvNet(depth=2, width=32)
    digits = Problem(name="convnet 2x32, 8px, 100 images", network=small, shape=(1, 8, 8), images=100, steps=100)
    if quick:
        return (digits,)
    grey, wide = ConvNet(depth=3, width=32), ConvNet()
    return (
        Problem(name="convnet 2x32, 8px, 10 images", network=small, shape=(1, 8, 8), images=10, steps=200),
        digits,
        Problem(name="convnet 3x32, 28px, 100 images", network=grey, shape=(1, 28, 28), images=100, steps=10),
        Problem(name="convnet 3x128, 32px, 10 images", network=wide, shape=(3, 32, 32), images=10, steps=20),
        Problem(name="convnet 3x128, 32px, 100 images", network=wide, shape=(3, 32, 32), images=100, steps=3),
    )


def measure(chosen: tuple[Problem, ...], rounds: int) -> dict[str, Any]:
    """Milliseconds a step of every problem and side, and how they compare to the first side."""
    say = terminal(stderr=True).print
    threads = torch.get_num_threads()
    rows: list[dict[str, Any]] = []
    with cold_compiler():
        for problem in chosen:
            say(f"timing {problem.name} (the compiled sides compile first)")
            # Processes of their own for each problem: none finds code that another has compiled.
            workers = {side: start(spawn_context(), serve, (Side, threads, True)) for side in SIDES}
            asked = {side: [worker] for side, worker in workers.items()}
            times = timed_rounds(asked, {side: (problem, side) for side in SIDES}, rounds)
            stop(list(workers.values()))
            rows += [{"problem": problem.name} | step_row(side, problem.steps, times) for side in SIDES]
    return {"device": device_name(), "threads": threads, "versions": versions(), "rounds": rounds, "rows": rows}


def step_row(side: str, num_steps: int, times: dict[str, Times]) -> dict[str, Any]:
    """Seconds a step, and as a share of the first side's in the same round; or why there are none."""
    own = times[side]
    if own.error is not None:
        return {"side": side, "error": str(own.error)}
    shares = [a / b for a, b in zip(own.rounds, times[FIRST].rounds, strict=False)]
    return {
        "side": side,
        "seconds_per_step": median(own.rounds) / num_steps,
        "ratio_to_first": median(shares) if shares else None,
        "first_seconds": own.first,
    }


def _print(result: dict[str, Any]) -> None:
    title = f"{result['device']}, {result['threads']} threads, median of {result['rounds']} interleaved rounds"
    caption = f"ratio: time to that of {FIRST} in the same round; first: the first round, compilation included"
    names = ("problem", "side", "ms/step", "ratio", "first, s")
    table = Table(*(Column(name, no_wrap=True) for name in names), title=title, caption=caption, box=SIMPLE_HEAD)
    for row in result["rows"]:
        if "error" in row:
            table.add_row(row["problem"], row["side"], str(row["error"])[:40])
            continue
        ratio = "" if row["ratio_to_first"] is None else f"{row['ratio_to_first']:.2f}"
        ms = f"{1000 * row['seconds_per_step']:.2f}"
        table.add_row(row["problem"], row["side"], ms, ratio, f"{row['first_seconds']:.1f}")
    terminal().print(table)
