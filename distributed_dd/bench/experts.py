"""`distributed-dd bench experts`: expert training against the usual loop, and several experts at once."""

import json
from collections.abc import Callable
from dataclasses import asdict
from statistics import median
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table
from torch import nn
from torch.utils.data import TensorDataset

from distributed_dd.backends.local.terminal import terminal
from distributed_dd.bench.packing import CLASSES, FORMS, OurExpert, Problem, measure_packing
from distributed_dd.bench.plain_expert import PlainExpert, PlainGSAM, PlainSGD, Update
from distributed_dd.bench.rounds import Times, Worker, ask, cold_compiler, device_name, serve, start, stop, timed_rounds
from distributed_dd.children import spawn_context
from distributed_dd.data import Facts
from distributed_dd.learning.augment import Siamese
from distributed_dd.learning.chance import generator
from distributed_dd.learning.networks import MLP, ConvNet
from distributed_dd.learning.optimizers import GSAM, SGD, Optimizer
from distributed_dd.outer.environment import versions
from distributed_dd.outer.work import TRAIN_FACTOR, forward_flops

RECIPES = {
    "ours": ("float32", False),
    "ours compiled": ("float32", True),
    "ours compiled bf16": ("bf16", True),
}
SIDES = ("plain", "plain, memory kept", *RECIPES)
OPTIMIZERS: dict[str, Optimizer] = {"sgd": SGD(), "gsam": GSAM()}
ROUNDS, PACKING_ROUNDS = 5, 3
Say = Callable[[str], None]


def main(as_json: bool, quick: bool) -> int:
    """Measure, print, return 0."""
    speed, packing = sizes(quick, torch.cuda.is_available())
    forms = tuple(FORMS)[-1:] if quick else tuple(FORMS)
    result = measure(speed, packing, 3 if quick else ROUNDS, PACKING_ROUNDS, forms=forms)
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        _print(result)
    return 0


def sizes(quick: bool, accelerator: bool) -> tuple[Problem, tuple[Problem, ...]]:
    """The problems of the two parts. Held-out images are a fifth of the training images, as in CIFAR-10."""
    small = MLP(depth=2, width=64), ConvNet(depth=2, width=32)
    if quick:
        few: dict[str, Any] = {"images": 256, "held_out": 51, "batch": 64}
        speed = Problem(name="convnet 2x16, 32px", network=ConvNet(depth=2, width=16), **few)
        tiny = Problem(name="mlp 2x64, 8px", network=small[0], channels=1, side=8, epochs=50, stacked=8, **few)
        return speed, (tiny,)
    many = 16 if accelerator else 1  # so that an epoch is long enough to be timed
    name = "convnet 3x128, 32px"
    enough: dict[str, Any] = {"images": 1024 * many, "held_out": 256}
    grey: dict[str, Any] = {"channels": 1, "side": 8, "stacked": 8, **enough}
    packing = (
        Problem(name=name, network=ConvNet(), stacked=4 if accelerator else 2, **enough),
        Problem(name="mlp 2x64, 8px", network=small[0], epochs=100 // many, **grey),
        Problem(name="convnet 2x32, 8px", network=small[1], epochs=1 + 19 // many, **grey),
    )
    return Problem(name=name, network=ConvNet(), images=1280 * many, held_out=256 * many), packing


def measure(
    speed: Problem,
    packing: tuple[Problem, ...],
    rounds: int,
    packing_rounds: int,
    sides: tuple = SIDES,
    forms: tuple = tuple(FORMS),
) -> dict[str, Any]:
    """Seconds, ratios to the plain loop and accuracies by side; images per second of several experts."""
    console = terminal(stderr=True)
    with cold_compiler():
        rate, rows = measure_speed(speed, rounds, sides, console.print)
        packed = measure_packing(packing, packing_rounds, console.print, forms)
    return {
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "rounds": rounds,
        "packing_rounds": packing_rounds,
        "problem": {**asdict(speed), "forward_flops": _forward_flops(speed)},
        "matrix_rate": rate,
        "speed": rows,
        "packing": packed,
    }


def measure_speed(problem: Problem, rounds: int, sides: tuple, say: Say) -> tuple[dict[str, float], list]:
    """The device's matrix rate in FLOP/s, and rows by optimiser and side."""
    threads = torch.get_num_threads()
    context = spawn_context()
    workers = {side: start(context, serve, (build_side, threads, side != "plain")) for side in sides}
    gauge = start(context, serve, (object, threads, True))  # by itself: what it sets may void compiled code
    rates: list[dict[str, float]] = []
    rows = []
    for optimizer in OPTIMIZERS:
        say(f"timing {problem.name}, {optimizer} (the compiled sides compile first)")
        rows += _speed_rows(problem, optimizer, rounds, workers, gauge, rates)
    stop([*workers.values(), gauge])
    rate = {name: median(r[name] for r in rates) for name in ("float32", "bf16")} if rates else {}
    return rate, [row | _fraction(problem, row, rate) for row in rows]


def build_side(side: str, problem: Problem, optimizer: str) -> PlainExpert | OurExpert:
    """One side's expert; all start from the same parameters."""
    if not side.startswith("plain"):
        precision, compile = RECIPES[side]
        return OurExpert(problem, OPTIMIZERS[optimizer], precision, compile)
    network = problem.build(seed=0)
    train, held_out = (TensorDataset(part.images, part.targets) for part in problem.data())
    rng = generator(0, "bench", "augment")
    torch.manual_seed(0)  # the loader's order
    return PlainExpert(
        network,
        _plain_update(network, OPTIMIZERS[optimizer]),
        train,
        held_out,
        problem.batch,
        augment=lambda images: Siamese().draw(rng, len(images))(images),
    )


def _plain_update(network: nn.Module, settings: Optimizer) -> Update:
    base = torch.optim.SGD(network.parameters(), lr=settings.learning_rate)
    if isinstance(settings, GSAM):
        return PlainGSAM(base, settings.rho, settings.alpha, settings.adaptive)
    return PlainSGD(base)


def _speed_rows(
    problem: Problem, optimizer: str, rounds: int, workers: dict[str, Worker], gauge: Worker, rates: list
) -> list[dict[str, Any]]:
    """Rows of one optimiser; adds a matrix rate a round, measured by ``gauge``, to ``rates``."""
    checks: list[float] = []  # seconds that the plain loop takes to evaluate

    def after_round() -> None:
        check = ask(workers["plain"][1], ("time", "accuracy"))
        checks.extend([check] if isinstance(check, float) else [])
        rate = ask(gauge[1], ("rate", None))
        rates.extend([rate] if isinstance(rate, dict) else [])

    arguments = {side: (side, problem, optimizer) for side in workers}
    times = timed_rounds({side: [w] for side, w in workers.items()}, arguments, rounds, after_round)
    rows = []
    for side, (_, pipe) in workers.items():
        head = {"optimizer": optimizer, "side": side}
        own = [] if side.startswith("plain") else checks  # the other plain loop evaluates too
        rows.append(head | speed_row(problem, times[side], times["plain"], own))
        if times[side].error is None:
            rows[-1]["accuracy"] = ask(pipe, ("call", "accuracy"))
    return rows


def speed_row(problem: Problem, times: Times, plain: Times, checks: list[float]) -> dict[str, Any]:
    """Figures of one side. Ratios are above 1 where it is faster than the plain loop, within a round.

    ``ratio_training_only`` leaves out ``checks``, what the plain loop spends on evaluation each epoch.
    """
    if times.error is not None:
        return {"error": times.error}
    row: dict[str, Any] = {"first_epoch_seconds": times.first, "seconds": median(times.rounds)}
    row["round_seconds"] = times.rounds
    row["images_per_second"] = median(problem.images / s for s in times.rounds)
    if plain.error is not None:
        return row
    pairs = list(zip(plain.rounds, times.rounds, strict=True))
    row["ratio_to_plain"] = median(theirs / own for theirs, own in pairs)
    if len(checks) == len(pairs):
        triples = zip(pairs, checks, strict=True)
        row["ratio_training_only"] = median((theirs - check) / own for (theirs, own), check in triples)
    return row


def _forward_flops(problem: Problem) -> int:
    """Of one image."""
    return forward_flops(problem.build(0).cpu(), Facts(problem.shape, CLASSES, problem.images))


def _fraction(problem: Problem, row: dict[str, Any], rate: dict[str, float]) -> dict[str, float]:
    """The share of the matrix rate, that of the side's own arithmetic, which training comes to."""
    if "error" in row or not rate:
        return {}
    work = TRAIN_FACTOR * _forward_flops(problem) * problem.images * OPTIMIZERS[row["optimizer"]].passes
    return {"matrix_fraction": work / row["seconds"] / rate["bf16" if "bf16" in row["side"] else "float32"]}


def _print(result: dict[str, Any]) -> None:
    console = terminal()
    rate = ", ".join(f"{name} {value / 1e12:.2f}" for name, value in result["matrix_rate"].items())
    title = f"{result['device']}, {result['threads']} threads; matrix products, TFLOP/s: {rate}"
    console.print(_speed_table(result, title))
    console.print(_packing_table(result))
    for row in (*result["speed"], *result["packing"]):
        if "error" in row:
            console.print(", ".join(str(value) for value in row.values()), markup=False)


def _speed_table(result: dict[str, Any], title: str) -> Table:
    caption = (
        f"median of {result['rounds']} interleaved rounds; first: with warm-up and compilation; ratio: plain "
        "seconds / seconds; bare: the same without the plain loop's evaluation; share: of the matrix rate; "
        f"acc.: of one network each, after {1 + result['rounds']} epochs"
    )
    columns = ("", "side", "first s", "s/epoch", "img/s", "ratio", "bare", "share", "acc.")
    table = _table(columns, f"{result['problem']['name']}: {title}", caption)
    for row in result["speed"]:
        formats = (
            ("first_epoch_seconds", ".1f"),
            ("seconds", ".3f"),
            ("images_per_second", ",.0f"),
            ("ratio_to_plain", ".2f"),
            ("ratio_training_only", ".2f"),
            ("matrix_fraction", ".0%"),
            ("accuracy", ".3f"),
        )
        table.add_row(row["optimizer"], row["side"], *_cells(row, formats))
    return table


def _packing_table(result: dict[str, Any]) -> Table:
    caption = f"median of {result['packing_rounds']} interleaved rounds; ratio to one at a time of the same form"
    columns = ("network", "form", "way", "experts", "images/s, all", "ratio")
    table = _table(columns, "several experts at once, sgd", caption)
    for row in result["packing"]:
        formats = (("images_per_second", ",.0f"), ("ratio_to_one", ".2f"))
        head = (row["network"], row["form"], row["way"], str(row["experts"]))
        table.add_row(*head, *_cells(row, formats))
    return table


def _table(columns: tuple[str, ...], title: str, caption: str) -> Table:
    """A table that fits into 80 columns."""
    plain = [Column(name, no_wrap=True) for name in columns]
    return Table(*plain, title=title, caption=caption, box=SIMPLE_HEAD, padding=(0, 0), pad_edge=False)


def _cells(row: dict[str, Any], formats: tuple[tuple[str, str], ...]) -> list[str]:
    if "error" in row:
        return ["failed"]
    return [format(row[key], how) if isinstance(row.get(key), float) else "-" for key, how in formats]
