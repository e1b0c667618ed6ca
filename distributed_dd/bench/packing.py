"""Several experts at once: one after another, in processes beside each other, or stacked in one."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.functional import cross_entropy, interpolate

from distributed_dd.bench.rounds import Times, Worker, serve, start, stop, timed_rounds
from distributed_dd.children import spawn_context
from distributed_dd.data import Digits, Images
from distributed_dd.learning.augment import Siamese
from distributed_dd.learning.chance import generator
from distributed_dd.learning.flat import FlatNetwork, flatten
from distributed_dd.learning.loop import Recipe, Training, accuracy
from distributed_dd.learning.networks import Network, initialised
from distributed_dd.learning.optimizers import SGD, Optimizer

CLASSES = 10
NOISE = 0.05  # standard deviations, on the copies where more images are asked for than there are
FORMS = {"eager": ("float32", False), "compiled bf16": ("bf16", True)}
WAYS = ("one at a time", "processes", "stacked")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A network on scikit-learn's digits, enlarged to ``channels`` x ``side`` x ``side``, standardised.

    Args:
        epochs: passes over the images in what is timed as one.
        stacked: experts that are stacked in one process.
    """

    name: str
    network: Network
    images: int
    held_out: int
    channels: int = 3
    side: int = 32
    batch: int = 256
    epochs: int = 1
    stacked: int = 2

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return self.channels, self.side, self.side

    def build(self, seed: int) -> nn.Module:
        """The network with fresh parameters, on the device."""
        rng = generator(seed, "bench", "network")
        return initialised(self.network, self.shape, CLASSES, rng).to(device())

    def data(self) -> tuple[Images, Images]:
        """Training and held-out images, on the CPU."""
        splits = Digits(num_test=256, num_validation=50).load()
        deviation, mean = torch.std_mean(splits.train.images)
        parts = ((splits.train, self.images), (splits.test, self.held_out))
        return tuple(self._sized(part, count, mean, deviation) for part, count in parts)  # type: ignore

    def _sized(self, part: Images, count: int, mean: Tensor, deviation: Tensor) -> Images:
        index = torch.arange(count) % len(part)
        images = (part.images[index] - mean) / deviation
        images = interpolate(images, (self.side, self.side), mode="bilinear").expand(-1, self.channels, -1, -1)
        copies = images[len(part) :]
        noise = NOISE * torch.randn(copies.shape, generator=generator(0, "bench", "noise"))
        return Images(torch.cat([images[: len(part)], copies + noise]), part.targets[index])


def device() -> torch.device:
    """The accelerator, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class OurExpert:
    """One training of the program's own."""

    def __init__(self, problem: Problem, optimizer: Optimizer, precision: Any, compile: bool, seed: int = 0):
        train, self.held_out = problem.data()
        recipe = Recipe(batch_size=problem.batch, optimizer=optimizer, precision=precision, compile=compile)
        images, targets = train.images.to(device()), train.targets.to(device())
        self.training = Training(problem.build(seed), images, targets, recipe, (seed, "bench"))
        self.epochs = problem.epochs

    def epoch(self) -> None:
        """What is timed: the problem's passes over the images."""
        for _ in range(self.epochs):
            for _ in self.training.run_epoch():
                pass

    def accuracy(self) -> float:
        """Share of held-out images that are classified correctly, in [0, 1]."""
        images, targets = self.held_out.images.to(device()), self.held_out.targets.to(device())
        return accuracy(self.training.network, images, targets)


def stacked_gradient(network: FlatNetwork) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """(theta_kP, images_kBCHW, targets_kB) -> gradients (k, P), each expert's of its own batch."""

    def loss(theta_P: Tensor, x_BCHW: Tensor, y_B: Tensor) -> Tensor:
        return cross_entropy(network.logits(theta_P, x_BCHW), y_B)

    return vmap(grad(loss))


class StackedExperts:
    """``count`` experts in one process, their parameters stacked: convolutions become grouped ones."""

    def __init__(self, problem: Problem, precision: str, compile: bool, count: int) -> None:
        train, _ = problem.data()
        self.problem, self.rate = problem, SGD().learning_rate
        self.images, self.targets = train.images.to(device()), train.targets.to(device())
        networks = [problem.build(seed) for seed in range(count)]
        self.theta_kP = torch.stack([flatten(network) for network in networks])
        self.gradient = stacked_gradient(FlatNetwork(networks[0], precision))
        if compile:
            mode = "reduce-overhead" if self.theta_kP.is_cuda else "default"  # as one expert is compiled
            self.gradient = torch.compile(self.gradient, dynamic=False, mode=mode)
        self.rngs = [generator(seed, "bench", "stacked") for seed in range(count)]

    def epoch(self) -> None:
        """What is timed: the problem's passes over the images, for every expert in its own order."""
        for _ in range(self.problem.epochs):
            orders = [torch.randperm(len(self.images), generator=rng) for rng in self.rngs]
            for batches in zip(*(order.split(self.problem.batch) for order in orders), strict=True):
                self._step(batches)

    def _step(self, batches: tuple[Tensor, ...]) -> None:
        drawn = [Siamese().draw(rng, len(b)) for rng, b in zip(self.rngs, batches, strict=True)]
        chosen = [batch.to(self.images.device) for batch in batches]
        x_kBCHW = torch.stack([d(self.images[b]) for d, b in zip(drawn, chosen, strict=True)])
        y_kB = torch.stack([self.targets[b] for b in chosen])
        self.theta_kP = self.theta_kP - self.rate * self.gradient(self.theta_kP, x_kBCHW, y_kB)


def measure_packing(
    problems: tuple[Problem, ...], rounds: int, say: Callable[[str], None], forms: tuple = tuple(FORMS)
) -> list[dict]:
    """Rows: images per second summed over the experts, by network, form and way."""
    rows = []
    for problem in problems:
        for form in forms:
            say(f"packing: {problem.name}, {form}")
            rows += _rows(problem, form, rounds)
    return rows


def _rows(problem: Problem, form: str, rounds: int) -> list[dict]:
    threads, count = torch.get_num_threads(), beside()
    precision, compile = FORMS[form]
    context = spawn_context()
    barrier = context.Barrier(count)
    workers: dict[str, list[Worker]] = {
        "one at a time": [start(context, serve, (OurExpert, threads, True))],
        "processes": [
            start(context, serve, (OurExpert, max(1, threads // count), True, barrier)) for _ in range(count)
        ],
        "stacked": [start(context, serve, (StackedExperts, threads, True))],
    }
    ours = (problem, SGD(), precision, compile)
    arguments = dict.fromkeys(WAYS[:2], ours) | {"stacked": (problem, precision, compile, problem.stacked)}
    times = timed_rounds(workers, arguments, rounds)
    stop([worker for group in workers.values() for worker in group])
    experts = {"one at a time": 1, "processes": count, "stacked": problem.stacked}
    heads = {way: {"network": problem.name, "form": form, "way": way, "experts": experts[way]} for way in WAYS}
    return [heads[way] | packing_row(problem, experts[way], times[way], times[WAYS[0]]) for way in WAYS]


def beside() -> int:
    """Processes beside each other: one a thread, at most 16; 4 that share an accelerator."""
    return 4 if torch.cuda.is_available() else min(max(torch.get_num_threads(), 2), 16)


def packing_row(problem: Problem, experts: int, times: Times, alone: Times) -> dict[str, Any]:
    """Figures of one way; the ratio, within a round, is of images per second to one expert at a time."""
    if times.error is not None:
        return {"error": times.error}
    images = experts * problem.images * problem.epochs
    row = {"first_epoch_seconds": times.first, "seconds": median(times.rounds)}
    row["images_per_second"] = median(images / s for s in times.rounds)
    if alone.error is None:
        pairs = zip(times.rounds, alone.rounds, strict=True)
        row["ratio_to_one"] = median(experts * one / s for s, one in pairs)
    return row
