"""A distillation of milliseconds, whose ranks can be compared with one process."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distributed_dd.backends.deepspeed.torch_ranks import TorchRanks
from distributed_dd.data.whitening import Standardise
from distributed_dd.evaluation.settings import Evaluation
from distributed_dd.learning.augment import Siamese
from distributed_dd.learning.chance import generator
from distributed_dd.learning.networks import ConvNet, Network
from distributed_dd.learning.update_rules import SGD, UpdateRule
from distributed_dd.methods.trajectory_matching.expert import Experts
from distributed_dd.methods.trajectory_matching.labels import ExpertEnsemble
from distributed_dd.methods.trajectory_matching.method import TrajectoryMatching
from distributed_dd.methods.trajectory_matching.segments import Window
from distributed_dd.methods.trajectory_matching.steps import TrajectorySteps
from distributed_dd.outer.checkpoint import Checkpoints, Saved, Shard
from distributed_dd.outer.learner import Held, require_gradients
from distributed_dd.outer.method import Seat
from distributed_dd.outer.set_worker import SetJob
from distributed_dd.outer.student import student_of
from distributed_dd.outer.world import World
from distributed_dd.unroll import Ranks, Stored

NUM_CLASSES, PER_CLASS, SHAPE = 5, 3, (1, 8, 8)
NUM_ROWS = NUM_CLASSES * PER_CLASS
NETWORK = ConvNet(depth=2, width=4)
# Batches of 9 and 6: over 2 ranks 5 + 4 and 3 + 3, over 4 ranks 3 + 2 + 2 + 2 and 2 + 2 + 1 + 1.
BATCH = 9


@dataclass(frozen=True)
class Smooth(TrajectoryMatching):
    """Trajectory matching of a smooth student: with ReLU two correct float32 paths flip masks (docs/derivations)."""

    dtype: torch.dtype = torch.float32

    def steps(self, world: World, seat: Seat) -> TrajectorySteps:
        """With Softplus, in any precision."""
        student = student_of(self, world)
        for module in student.network.modules():
            for name, child in module.named_children():
                if isinstance(child, nn.ReLU):
                    setattr(module, name, nn.Softplus())
        return TrajectorySteps(self, world, seat, student.to(torch.device("cpu"), self.dtype))


def method(**settings: Any) -> Smooth:
    """Four segments of four student steps, all augmentations, all three things learned."""
    common = dict(
        segments=Window(3),
        student_steps=4,
        expert_epochs=1,
        batch_size=BATCH,
        student_learning_rate=0.1,
        segments_per_outer_step=4,
        gate=None,
        augment=Siamese(),
        labels=ExpertEnsemble(),
        label_optimizer=SGD(2.0, 0.9),
        experts=Experts(num_experts=3),
    )
    rules = dict(image_optimizer=SGD(1.0, 0.5), rate_optimizer=SGD(1e-3, 0.5))
    return Smooth(**{**rules, **common, **settings})


def starting() -> dict[str, torch.Tensor]:
    """The set before the first outer step."""
    return {
        "images": torch.randn(NUM_ROWS, *SHAPE, generator=generator(0, "images")),
        "labels": torch.randn(NUM_ROWS, NUM_CLASSES, generator=generator(0, "labels")),
        "classes": torch.arange(NUM_CLASSES).repeat_interleave(PER_CLASS),
        "learning_rate": torch.tensor(0.1),
    }


def first_shard(folder: Path, part: int = 0, num_parts: int = 1) -> Shard:
    """Checkpoint 0, whole; ``part`` keeps the files of ranks that each write one apart."""
    return Checkpoints(folder, "config").write_shard(0, part, num_parts, 0, starting())


class Drifting:
    """A store of experts that drift in a straight line; also in float64."""

    def __init__(self, dtype=torch.float32):
        self.dtype = dtype

    def open(self, expert):
        self.expert = expert
        return self

    def checkpoint(self, epoch):
        size = sum(p.numel() for p in NETWORK.build(SHAPE, NUM_CLASSES).parameters())
        start = 0.3 * torch.randn(size, generator=generator(self.expert, "theta"), dtype=torch.float64)
        drift = 0.1 * torch.randn(size, generator=generator(self.expert, "drift"), dtype=torch.float64)
        return (start + epoch * drift).to(self.dtype)


def world(shared: Any = None, network: Network = NETWORK) -> World:
    """An experiment of this size, without real images."""
    return World(
        seed=0,
        network=network,
        image_shape=SHAPE,
        num_classes=NUM_CLASSES,
        images_per_class=PER_CLASS,
        num_outer_steps=5,
        preprocessing=Standardise(),
        evaluate=Evaluation(),
        output=Path("runs"),
        real=None,
        shared=shared,
    )


def job(checkpoints: Checkpoints, dtype: torch.dtype = torch.float32, **settings: Any) -> SetJob:
    """The distillation as every rank is told it."""
    return SetJob(method(dtype=dtype, **settings), world(Drifting(dtype)), checkpoints)


class Caught:
    """Tools of a rank whose learner only catches the gradient of one outer step, in any precision."""

    num_rows = NUM_ROWS

    def __init__(self, ranks: Ranks, parted: bool, dtype: torch.dtype, place: Callable[[], Stored]) -> None:
        now = {name: t.to(dtype) if t.is_floating_point() else t for name, t in starting().items()}
        first, last = ranks.layout.kept(NUM_ROWS) if parted else (0, NUM_ROWS)
        now |= {name: now[name][first:last] for name in ("images", "labels")}
        self.held = Held(first, {name: value for name, value in now.items() if name != "classes"})
        self.span, self.ranks, self.place = (first, last), ranks, place

    def learner(self, saved: Saved, rules: Mapping[str, UpdateRule]) -> "Caught":
        """This is the learner too."""
        self.rules = rules
        return self

    def stored(self, num_parameters: int, num_steps: int) -> Callable[[], Stored]:
        """Where it was said."""
        return self.place

    def read(self) -> Held:
        """The set as it was at the start."""
        return self.held

    def step(self, gradients: Mapping[str, Tensor], rate_factor: float = 1.0) -> Tensor:
        """Put the parts of all ranks together, as the contract of learners says: they add up."""
        require_gradients(gradients, self.rules)
        first, last = self.span
        dtype = gradients["images"].dtype
        images = torch.zeros(NUM_ROWS, *SHAPE, dtype=dtype)
        labels = torch.zeros(NUM_ROWS, NUM_CLASSES, dtype=dtype)
        images[first:last], labels[first:last] = gradients["images"], gradients["labels"]
        parts = {"images": images, "labels": labels, "learning_rate": gradients["learning_rate"].clone()}
        self.whole = {name: self.ranks.sum(part) for name, part in parts.items()}
        return torch.zeros((), dtype=torch.float64)

    def lift(self, name: str, floor: float) -> bool:
        """Nothing is lifted."""
        return False

    def value(self, name: str) -> float:
        """A number as it was at the start."""
        return self.held.tensors[name].item()


def ranks_of(rank, num_groups: int) -> TorchRanks:
    """The ranks of a gang as a grid, for each grid one."""
    known = rank.__dict__.setdefault("grids", {})
    if num_groups not in known:
        known[num_groups] = TorchRanks(num_groups)
    return known[num_groups]
