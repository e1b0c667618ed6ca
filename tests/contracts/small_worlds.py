"""For every method an experiment of milliseconds: what the contract in test_methods.py runs.

A new kind of method fails there until POINTS has an entry for it: a configuration as people type it, and nothing else,
since what runs share and the first checkpoint are made as `distributed-dd run` makes them. Beside them are doubles of
ranks that meet in one process, in any precision.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from distributed_dd.backends.local.cluster import InProcess
from distributed_dd.backends.local.engine import Local, LocalWorkers
from distributed_dd.backends.local.learner import LocalLearner
from distributed_dd.data import Images
from distributed_dd.data.whitening import Standardise
from distributed_dd.errors import ConfigError
from distributed_dd.evaluation.settings import Evaluation
from distributed_dd.experiment import Experiment, experiment_of
from distributed_dd.experiment_run import Run
from distributed_dd.learning.chance import generator
from distributed_dd.learning.networks import ConvNet, Network
from distributed_dd.learning.update_rules import UpdateRule, is_by_row
from distributed_dd.methods import METHODS
from distributed_dd.outer.checkpoint import Checkpoints, Saved, Shard
from distributed_dd.outer.learner import Held, require_gradients
from distributed_dd.outer.ports import Job
from distributed_dd.outer.world import Carried, World
from distributed_dd.unroll import Layout, OnDevice, Spread, Stored

SHAPE = (1, 8, 8)
TRAIN, TEST = (12, 10, 8), (4, 4, 4)
"""Images of each class in the file; of the training images two of each are set aside for validation."""
PER_CLASS = 4
SEED = 7

COMMON: dict[str, Any] = {
    "images_per_class": PER_CLASS,
    "num_outer_steps": 7,
    "checkpoint_every": 2,
    "tracker": "none",
    "seed": SEED,
    "preprocessing": {"kind": "standardise"},
    "network": {"kind": "convnet", "depth": 2, "width": 4},
    "evaluate": {
        "num_epochs": 2,
        "num_networks": 2,
        "num_validation_networks": 1,
        "every": 4,
        "num_epochs_full_data": 1,
    },
}

EXPERTS = {"num_experts": 2, "num_epochs": 4, "batch_size": 8, "optimizer": {"kind": "sgd", "learning_rate": 0.1}}
TRAJECTORY = {
    "kind": "trajectory_matching",
    "student_steps": 3,
    "expert_epochs": 1,
    "batch_size": 7,
    "student_learning_rate": 0.05,
    "gate": None,
    "image_optimizer": {"learning_rate": 0.5},
    "rate_optimizer": {"learning_rate": 1e-4},
    "segments": {"kind": "window", "max_start_epoch": 3},
}
GAN = {
    "kind": "generative",
    "generator": {"width": 4, "noise_size": 12},
    "discriminator": {"width": 4},
    "gan": {"num_steps": 4, "batch_size": 8, "show_every": 4},
    "batch_size": 8,
    "ema_decay": 0.9,
    "generator_optimizer": {"learning_rate": 1e-3},
    "discriminator_optimizer": {"learning_rate": 1e-3},
}
POOL = {
    "networks": [{"kind": "convnet", "depth": 2, "width": 4}, {"kind": "convnet", "depth": 1, "width": 4}],
    "steps_per_network": 3,
    "net_steps": 2,
    "batch_size": 8,
}
# Two turns and a third begun, with epochs of the network between; a batch that one class cannot fill.
TURNS = {
    "kind": "gradient_matching",
    "batch_size": 7,
    "steps_per_network": 3,
    "network_epochs": 2,
    "network_batch_size": 5,
    "network_learning_rate": 0.05,
}
ALIKE = {"kind": "dsa", "shared": True}
# As above: the most updates of a turn come before there are accuracies enough to end it.
ALIGNED = {
    "kind": "feature_alignment",
    "batch_size": 7,
    "max_updates_per_turn": 3,
    "max_inner_epochs": 2,
    "network_batch_size": 5,
    "network_learning_rate": 0.05,
}
# Bilevel: a window that cuts the student's training, students that carry on, learned steps.
BILEVEL = {
    "kind": "performance_matching",
    "student_steps": 4,
    "student_learning_rate": 0.05,
    "batch_size": 9,
    "batches": {"kind": "shuffled", "size": 7},
}

POINTS: dict[str, dict[str, Any]] = {
    "bptt": {
        "method": {
            **BILEVEL,
            "final_rate": 0.1,
            "rule": {"kind": "momentum"},
            "rates": {"kind": "one", "optimizer": {"kind": "sgd", "learning_rate": 1e-4}},
            "labels": {"kind": "learned"},
            "students_per_outer_step": 2,
            "ema_decay": 0.9,
            "augment": {"kind": "dsa"},
        },
    },
    "rat_bptt": {
        "method": {
            **BILEVEL,
            "name": "rat_bptt",
            "rule": {"kind": "momentum"},
            "window": {"kind": "random", "num_steps": 2},
            "source": {"kind": "pool", "num_networks": 3, "max_age": 6},
            "students_per_outer_step": 2,
            "clip": {"kind": "running_norm", "decay": 0.5, "multiple": 0.9},
        },
    },
    "dd": {
        "method": {
            **BILEVEL,
            "name": "dd",
            "batches": {"kind": "blocks"},
            "rates": {"kind": "each"},
            "source": {"kind": "known"},
            "start": {"kind": "noise"},
            "augment_real": {"kind": "dsa"},
        },
    },
    "datm": {
        "experts": EXPERTS,
        "method": {
            **TRAJECTORY,
            "segments_per_outer_step": 2,
            "ema_decay": 0.9,
            "labels": {"kind": "expert_ensemble"},
            "label_optimizer": {"learning_rate": 0.1, "momentum": 0.9},
            "start": {"kind": "correctly_predicted"},
        },
    },
    # Soft labels that are learned, an average, a mask that was chosen on real images; two pictures in an image.
    "datm_frequency": {
        "images_per_class": 2,
        "set": {"form": {"kind": "frequency", "share": 0.45}},
        "experts": EXPERTS,
        "method": {
            **TRAJECTORY,
            "segments_per_outer_step": 2,
            "ema_decay": 0.9,
            "labels": {"kind": "expert_ensemble"},
            "label_optimizer": {"learning_rate": 0.1, "momentum": 0.9},
            "start": {"kind": "correctly_predicted"},
        },
    },
    "mtt": {
        "experts": EXPERTS,
        "method": {**TRAJECTORY, "name": "mtt", "labels": {"kind": "hard"}, "start": {"kind": "real"}},
    },
    "att": {
        "experts": EXPERTS,
        "method": {
            **TRAJECTORY,
            "name": "att",
            "labels": {"kind": "hard"},
            "start": {"kind": "real"},
            "segments_per_outer_step": 2,
            "counted": {"kind": "deep"},
            "compared": {"kind": "nearest"},
        },
    },
    "edf": {
        "experts": EXPERTS,
        "method": {**TRAJECTORY, "name": "edf", "counted": {"kind": "furthest"}},
    },
    "labels_of_the_target": {
        "experts": EXPERTS,
        "method": {
            **TRAJECTORY,
            "name": "tesla",
            "labels": {"kind": "target_network"},
            "start": {"kind": "real"},
            "augment": {"kind": "none"},
        },
    },
    "generative": {
        "method": {**GAN, "pool": POOL, "global_weight": 1.0, "local_weight": 0.1, "augment": {"kind": "dsa"}},
    },
    "cgan": {"method": {**GAN, "name": "cgan", "pool": POOL, "global_weight": 0.0, "local_weight": 0.0}},
    "dm": {"method": {"kind": "distribution_matching", "batch_size": 7}},
    # Two tiles by two in an image: four pictures of each class in one row.
    "dm_formation": {
        "images_per_class": 1,
        "set": {"form": {"kind": "formation"}},
        "method": {"kind": "distribution_matching", "batch_size": 7},
    },
    "dm_adam": {
        "method": {
            "kind": "distribution_matching",
            "batch_size": 5,
            "augment": {"kind": "none"},
            "start": {"kind": "noise"},
            "image_optimizer": {"kind": "adam", "learning_rate": 0.01},
        },
    },
    "dc": {"method": TURNS},
    "dc_published": {"images_per_class": 1, "method": {"kind": "gradient_matching", "batch_size": 7}},
    "dsa": {
        "method": {
            **TURNS,
            "name": "dsa",
            "start": {"kind": "real"},
            "augment": ALIKE,
            "network_augment": {"kind": "dsa"},
        },
    },
    "dsa_squared_error": {
        "network": {"kind": "mlp", "depth": 2, "width": 6},
        "method": {**TURNS, "distance": "squared_error", "start": {"kind": "real"}, "augment": ALIKE},
    },
    # Two networks that grow old within the seven steps; batches that the set and the real images fill more than once.
    "frepo": {
        "method": {
            "kind": "neural_features",
            "batch_size": 7,
            "pool": {"num_networks": 2, "max_age": 1, "batch_size": 9},
            "image_optimizer": {"learning_rate": 0.01},
            "target_optimizer": {"learning_rate": 0.01},
            "ridge": 1e-3,
            "rows_at_once": 5,
        },
    },
    # Running statistics in the state, and mirrored images.
    "frepo_mirrored": {
        "network": {"kind": "frepo_convnet", "depth": 2, "width": 4, "norm": "batch"},
        "method": {"kind": "neural_features", "flip": True, "ridge": 1e-2},
    },
    "rfad": {
        "method": {
            "kind": "neural_features",
            "name": "rfad",
            "batch_size": 9,
            "pool": {"kind": "fresh", "num_networks": 3},
            "image_optimizer": {"kind": "adam", "learning_rate": 1e-3},
            "target_optimizer": {"kind": "adam", "learning_rate": 1e-3},
            "final_rate": 1.0,
            "ridge": 5e-3,
            "kernel_scale": 2.0,
            "kernel_offset": 0.01,
            "margin": False,
        },
    },
    "cafe": {"method": ALIGNED},
    # Accuracies end turns and the network's epochs; the rate of the images is halved on the way.
    "cafe_watched": {
        "method": {
            **ALIGNED,
            "max_updates_per_turn": 6,
            "max_inner_epochs": 6,
            "num_accuracies": 2,
            "turn_spread": 0.2,
            "inner_spread": 0.05,
            "num_watched_images": 6,
            "watched": "plain",
            "halved_at": [1, 2],
            "weights": [0.5, 0.2, 0.0, 2.0],
            "start": {"kind": "real"},
            "augment": ALIKE,
            "network_augment": {"kind": "dsa"},
        },
    },
    "kip": {"method": {"kind": "kernel_regression", "batch_size": 20}},
    "kip_targets": {
        "method": {"kind": "kernel_regression", "batch_size": 15, "learned_targets": True, "augment": {"kind": "dsa"}},
    },
    "kip_conv": {
        "images_per_class": 2,
        "method": {
            "kind": "kernel_regression",
            "kernel": {"kind": "conv", "blocks": [1, 1]},
            "batch_size": 9,
            "start": {"kind": "noise"},
        },
    },
    # Two rows of four: within class blocks, and within the parts of ranks.
    "datm_frozen": {
        "experts": EXPERTS,
        "method": {
            **TRAJECTORY,
            "name": "selmatch",
            "ema_decay": 0.9,
            "labels": {"kind": "expert_ensemble"},
            "label_optimizer": {"learning_rate": 0.1, "momentum": 0.9},
            "start": {"kind": "real"},
        },
        "set": {"frozen": {"share": 0.5, "rest": "chosen", "images": {"kind": "difficulty", "start": 0.1, "end": 0.9}}},
    },
    "dm_frozen": {
        "method": {"kind": "distribution_matching", "batch_size": 7, "start": {"kind": "noise"}},
        "set": {"frozen": {"share": 0.25}},
    },
    "dc_cosine": {"method": {**TURNS, "distance": "cosine", "image_optimizer": {"kind": "lamb"}}},
}
"""Name -> what a point says beside COMMON. The first of a kind stands for it where every verb is tried."""

TRUNCATED = ("rat_bptt",)
"""Points whose window leaves out what earlier student steps change: their gradient is not that of the loss."""
CONSTANT_LABELS = ("labels_of_the_target",)
"""Labels follow the images but count as constants, as published: the gradient is not that of the loss."""


PLAIN: dict[str, Callable[..., Tensor]] = {}
"""Kind -> for methods that compare classes: the loss of one, as the field's code writes it."""


def plain(kind: str) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Enter a function into PLAIN: (network, real images, synthetic images, class, method) -> loss."""

    def enter(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        PLAIN[kind] = function
        return function

    return enter


@plain("distribution_matching")
def _mean_features(network: nn.Sequential, real: Tensor, synthetic: Tensor, number: int, method: Any) -> Tensor:
    """What goes into the last layer, averaged over images."""
    features = network[:-1]
    return ((features(real).mean(0) - features(synthetic).mean(0)) ** 2).sum()


@plain("gradient_matching")
def _gradients(network: nn.Sequential, real: Tensor, synthetic: Tensor, number: int, method: Any) -> Tensor:
    """Gradients of the loss of a class, layer by layer."""
    sides = []
    for images in (real, synthetic):
        loss = nn.functional.nll_loss(network(images).log_softmax(1), torch.full((len(images),), number))
        sides.append(torch.autograd.grad(loss, list(network.parameters()), create_graph=True))
    if method.distance != "row_cosine":
        a, b = (torch.cat([part.reshape(-1) for part in side]) for side in sides)
        return ((a - b) ** 2).sum() if method.distance == "squared_error" else 1 - _one_cosine(a, b)
    total = torch.zeros((), dtype=real.dtype)
    for a, b in zip(*sides, strict=True):
        if a.ndim > 1:  # biases and gains of norms are left out
            total = total + sum(1 - _one_cosine(a[row].reshape(-1), b[row].reshape(-1)) for row in range(len(a)))
    return total


def _one_cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / (a.norm() * b.norm() + 0.000001)


def plain_of(kind: str) -> Callable[..., Tensor]:
    """The plain loss of a kind.

    Raises:
        LookupError: a method that compares classes has none.
    """
    if kind not in PLAIN:
        raise LookupError(f"PLAIN in {__file__} has no loss for {kind}: @plain({kind!r}) above a function enters one")
    return PLAIN[kind]


SWEPT: dict[str, dict[str, Any]] = {
    "generative": {"method.global_weight": {"kind": "choice", "values": [0.5, 1.0]}},
}
"""Kind -> what a small sweep of it varies, where that is not the learning rate of the images."""


def varied_in(kind: str) -> dict[str, Any]:
    """The space of a small sweep; the point that stands for the kind lies in it."""
    if kind in SWEPT:
        return SWEPT[kind]
    values = {**COMMON, "data": {"kind": "digits"}, **POINTS[example(kind)]}
    rate = experiment_of(values).method.image_optimizer.learning_rate
    return {"method.image_optimizer.learning_rate": {"kind": "choice", "values": [0.5 * rate, rate]}}


def kind_of(point: str) -> str:
    """The kind of a point's method."""
    return POINTS[point]["method"]["kind"]


def points_of(kind: str) -> list[str]:
    """The points of a kind; its own name where there is none, and so a failure that says what is missing."""
    return [name for name in POINTS if kind_of(name) == kind] or [kind]


def example(kind: str) -> str:
    """The point that stands for a kind."""
    return points_of(kind)[0]


EVERY_POINT = [point for kind in METHODS.members for point in points_of(kind)]


def data_in(folder: Path) -> Path:
    """The file of the real images, written where it is not there."""
    path = folder / "small.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {}
        for split, counts in (("train", TRAIN), ("test", TEST)):
            targets = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
            arrays |= {f"{split}_images": _drawn(targets, split), f"{split}_labels": targets.numpy()}
        numpy.savez(path, **arrays)
    return path


def _drawn(targets: Tensor, key: str) -> Any:
    """A pattern for each class, and noise."""
    patterns = torch.rand(int(targets.max()) + 1, *SHAPE, generator=generator(0, "patterns"))
    noise = torch.rand(len(targets), *SHAPE, generator=generator(0, "noise", key))
    return (170 * patterns[targets] + 85 * noise).to(torch.uint8).numpy()


def values_of_point(point: str, folder: Path) -> dict[str, Any]:
    """A point as a configuration whose results go to ``folder``.

    Raises:
        LookupError: a method has no entry here.
    """
    if point not in POINTS:
        raise LookupError(f"method {point!r} has no entry in POINTS of tests/contracts/small_worlds.py")
    data = {"kind": "arrays", "path": str(data_in(folder)), "validation_fraction": 0.2}
    return {**COMMON, "data": data, "output": str(folder), **POINTS[point]}


def experiment_at(point: str, folder: Path) -> Experiment:
    """A point as an experiment."""
    return experiment_of(values_of_point(point, folder))


def made(point: str, folder: Path) -> Run:
    """A point with what its runs share made, and nothing else."""
    whole = Run(experiment=experiment_at(point, folder), cluster=InProcess())
    whole.prepare()
    return whole


def begun(folder: Path, tensors: Mapping[str, Tensor]) -> Checkpoints:
    """Checkpoints with the first one written."""
    checkpoints = Checkpoints(folder, "small")
    commit(checkpoints, 0, checkpoints.write_shard(0, 0, 1, 0, tensors))
    return checkpoints


def commit(checkpoints: Checkpoints, step: int, *shards: Shard) -> None:
    """Make these shards the newest checkpoint."""
    checkpoints.commit(step, {"start": shards, "best": [], "newest": shards}, {})


def working(job: Job) -> LocalWorkers:
    """One process that goes on from the newest checkpoint."""
    workers = LocalWorkers(job=job, cluster=InProcess(), settings=Local(stored="device"))
    workers.start()
    return workers


def steps_here(points: Sequence[str], folder: Path, step: int) -> dict[str, tuple[str, dict[str, float]]]:
    """For each point the outer step ``step`` in this process, from its checkpoint below ``folder``.

    Returns the SHA-256 of the shard that is written after it, and what was measured.
    """
    found = {}
    for point in points:
        whole, checkpoints = made(point, folder), Checkpoints(folder / "steps" / point, "small")
        workers = working(whole.method.job(whole.world, checkpoints))
        (metrics,) = workers.outer_steps(step, step + 1)
        (shard,) = workers.save(step + 1)
        found[point] = shard.sha256, metrics
    return found


@dataclass(frozen=True)
class Smooth:
    """A network with Softplus for ReLU: it can be differentiated twice, and rounding flips no masks."""

    network: Network

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """The layers of ``network``, these exchanged; blocks keep their names."""
        layers = self.network.build(image_shape, num_classes)
        for module in layers.modules():
            for name, child in module.named_children():
                if isinstance(child, nn.ReLU):
                    setattr(module, name, nn.Softplus())
        return layers


def smooth(world: World) -> World:
    """The world with a network that is smooth."""
    return replace(world, network=Smooth(world.network))


def exact(world: World) -> World:
    """The world for float64: smooth, and trajectories in float64 too."""
    shared = None if world.shared is None else _Exact(world.shared)
    return replace(smooth(world), shared=shared)


def in_float64(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors in float64; classes and counts stay what they are."""
    return {n: t.double() if t.is_floating_point() and not n.endswith("updates") else t for n, t in tensors.items()}


@dataclass(frozen=True)
class _Exact:
    """A prelude whose trajectories ranks read in float64."""

    prelude: Any

    def carried(self) -> Any:
        """As the prelude does."""
        carried = self.prelude.carried()
        return _ExactStore(carried) if hasattr(carried, "open") else carried


@dataclass(frozen=True)
class _ExactStore:
    """A store, or a trajectory of one, in float64."""

    inner: Any

    def open(self, expert: int) -> "_ExactStore":
        """The trajectory of an expert."""
        return _ExactStore(self.inner.open(expert))

    def checkpoint(self, epoch: float) -> Tensor:
        """The parameters (P,) at an epoch."""
        return self.inner.checkpoint(epoch).double()


def many_classes(num_classes: int, per_class: int) -> World:
    """Any number of classes as ranks are told of them, of random numbers: for counts of bytes and calls."""
    targets = torch.arange(num_classes).repeat_interleave(24)
    images = torch.randn(len(targets), *SHAPE, generator=generator(0, "real", num_classes))
    return World(
        seed=SEED,
        network=ConvNet(2, 8),
        image_shape=SHAPE,
        num_classes=num_classes,
        images_per_class=per_class,
        num_outer_steps=6,
        preprocessing=Standardise(),
        evaluate=Evaluation(),
        output=Path("runs"),
        real=Carried(train=Images(images, targets)),
    )


class Meeting:
    """Where simulated ranks meet: threads of which one runs at a time, until all of them wait here.

    One at a time, because networks are initialised under torch's global random state, which threads share.
    """

    def __init__(self, size: int, turn: threading.Lock) -> None:
        self.turn, self.given = turn, [None] * size  # type: threading.Lock, list[Any]
        self.barrier = threading.Barrier(size, self._all_are_here)
        self.result: list[Any] = []

    def meet(self, place: int, what: tuple, value: Any) -> list[Any]:
        """What all brought, in their order; ``what`` must be the same for all.

        Raises:
            RuntimeError: somebody asked for something else, or failed.
        """
        self.given[place] = what, value
        self.turn.release()
        try:
            self.barrier.wait(60)
        finally:
            self.turn.acquire()
        return self.result

    def _all_are_here(self) -> None:
        asked = [what for what, _ in self.given]
        if any(what != asked[0] for what in asked):
            raise RuntimeError(f"ranks ask for different things: {asked}")
        self.result = [value for _, value in self.given]


@dataclass
class SimulatedRanks:
    """The ranks of a gang, in one process. As those of a process group they use up what is handed to a sum.

    Attributes:
        log: which collectives were asked for, and how many numbers this rank handed in.
    """

    layout: Layout
    everyone: Meeting
    in_group: Meeting
    log: list[tuple[str, int]] = field(default_factory=list)

    def sum(self, part: Tensor) -> Tensor:
        """The sum over all, in the order of ranks."""
        self.log.append(("sum", part.numel()))
        return self.silent_sum(part)

    def silent_sum(self, part: Tensor) -> Tensor:
        """The same without a note in the log."""
        return self._sum(self.everyone, self.layout.rank, part)

    def sum_in_group(self, part: Tensor) -> Tensor:
        """The sum over the group."""
        self.log.append(("sum in group", part.numel()))
        return self._sum(self.in_group, self.layout.place, part)

    def _sum(self, where: Meeting, place: int, part: Tensor) -> Tensor:
        everything = where.meet(place, ("sum", part.shape, part.dtype), part.clone())
        return part.copy_(torch.stack(everything).sum(0))

    def first_of_group(self, value: Tensor) -> Tensor:
        """What the group's first rank has."""
        self.log.append(("first", value.numel()))
        return self.in_group.meet(self.layout.place, ("first", value.shape), value.clone())[0].clone()

    def gather_in_group(self, part: Tensor) -> Callable[[], Tensor]:
        """The parts of the group, one below the other."""
        whole = torch.stack(self.in_group.meet(self.layout.place, ("gather", part.shape), part.clone()))
        return lambda: whole

    def exchange(self, rows: Tensor, given: Sequence[int], taken: Sequence[int]) -> Callable[[], Tensor]:
        """Rows go where they are wanted."""
        parts = rows.clone().split(list(given))
        come = torch.cat([sent[self.layout.rank] for sent in self.everyone.meet(self.layout.rank, ("rows",), parts)])
        assert len(come) == sum(taken), "other rows came than were expected"
        return lambda: come


def over_ranks(num_ranks: int, num_groups: int, function: Callable[[SimulatedRanks], Any]) -> list[Any]:
    """``function`` on every rank of a simulated gang, in lock-step."""
    turn, size = threading.Lock(), num_ranks // num_groups
    everyone = Meeting(num_ranks, turn)
    groups = [Meeting(size, turn) for _ in range(num_groups)]
    found: list[Any] = [None] * num_ranks
    failed: list[BaseException] = []

    def run(rank: int) -> None:
        layout = Layout(rank, num_ranks, num_groups)
        with turn:
            try:
                found[rank] = function(SimulatedRanks(layout, everyone, groups[layout.group]))
            except BaseException as error:
                failed.append(error)
                for meeting in (everyone, *groups):
                    meeting.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(num_ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    if failed:
        raise next((e for e in failed if not isinstance(e, threading.BrokenBarrierError)), failed[0])
    assert not any(thread.is_alive() for thread in threads), "a rank waits for the others"
    return found


class RankLearner:
    """What the contract of learners says, in any precision: whole below, of which a rank is shown its part.

    Attributes:
        parted: whether a rank reads only the rows that it keeps.
        gradients: of every update so far, summed over ranks.
    """

    def __init__(self, ranks: SimulatedRanks, parted: bool, saved: Saved, rules: Mapping[str, UpdateRule]) -> None:
        self.ranks, self.inner, self.rules = ranks, LocalLearner(saved, rules), rules
        self.sum = getattr(ranks, "silent_sum", ranks.sum)  # its own messages are not those that are counted
        self.num_rows = self.inner.num_rows
        self.own = ranks.layout.kept(self.num_rows)
        self.shown = self.own if parted else (0, self.num_rows)
        self.gradients: list[dict[str, Tensor]] = []

    def read(self) -> Held:
        """All rows, or this rank's; copies."""
        tensors = self.inner.read().tensors
        return Held(self.shown[0], {name: self._cut(name, value, self.shown) for name, value in tensors.items()})

    def step(self, gradients: Mapping[str, Tensor], rate_factor: float = 1.0) -> Tensor:
        """An update with the sum over ranks."""
        require_gradients(gradients, self.rules)
        whole = {}
        for name, part in gradients.items():
            place = torch.zeros_like(self.inner.read().tensors[name])
            if is_by_row(name):
                place[slice(*self.shown)] = part
            else:
                place.copy_(part)
            whole[name] = self.sum(place)
        self.gradients.append({name: value.clone() for name, value in whole.items()})
        norm = self.inner.step(whole, rate_factor)
        return norm if self.ranks.layout.rank == 0 else torch.zeros_like(norm)

    def replace(self, name: str, rows: Tensor) -> None:
        """In the place of those that `read` gives."""
        self.inner.replace(name, self._put_together(name, rows))

    def _put_together(self, name: str, rows: Tensor) -> Tensor:
        whole = self.inner.read().tensors[name].clone()
        whole[slice(*self.shown)] = rows
        return whole

    def lift(self, name: str, floor: float) -> bool:
        """As one process does."""
        return self.inner.lift(name, floor)

    def value(self, name: str) -> float:
        """As one process has it."""
        return self.inner.value(name)

    def kept(self) -> dict[str, Tensor]:
        """This rank's rows, and flat tensors."""
        return {name: self._cut(name, value, self.own) for name, value in self.inner.kept().items()}

    def slots(self) -> dict[str, Tensor]:
        """Likewise."""
        return {name: self._cut(name, value, self.own) for name, value in self.inner.slots().items()}

    def close(self) -> None:
        """Nothing outlives it."""

    def _cut(self, name: str, value: Tensor, span: tuple[int, int]) -> Tensor:
        return (value[slice(*span)] if is_by_row(name) else value).clone()


@dataclass
class RankTools:
    """What a simulated rank works with; ``learners`` are those that were asked for."""

    ranks: SimulatedRanks
    parted: bool
    learners: list[RankLearner] = field(default_factory=list)

    def learner(self, saved: Saved, rules: Mapping[str, UpdateRule]) -> RankLearner:
        """One of simulated ranks."""
        self.learners.append(RankLearner(self.ranks, self.parted, saved, rules))
        return self.learners[-1]

    def stored(self, num_parameters: int, num_steps: int) -> Callable[[], Stored]:
        """Spread over the group, where there are several in it."""
        alone = self.ranks.layout.group_size == 1
        return OnDevice if alone else lambda: Spread(self.ranks)


def refused(check: Callable[[], Any]) -> str:
    """The reason for which something is refused; nothing where it is not."""
    try:
        check()
    except ConfigError as error:
        return str(error)
    return ""
