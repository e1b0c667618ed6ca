"""A distillation of milliseconds, whose ranks can be compared with one process."""

import torch
from torch import nn

from distributed_dd.backends.torch_ranks import TorchRanks
from distributed_dd.distillation.augment import Siamese
from distributed_dd.distillation.chance import generator
from distributed_dd.distillation.labels import ExpertEnsemble
from distributed_dd.distillation.methods import TrajectoryMatching
from distributed_dd.distillation.methods.trajectory_matching import ParameterSGD
from distributed_dd.distillation.networks import ConvNet
from distributed_dd.distillation.segments import Window
from distributed_dd.distillation.unroll import MatchingGradient
from distributed_dd.stages.ports import Held
from distributed_dd.stages.set_worker import SetJob

NUM_CLASSES, PER_CLASS, SHAPE = 5, 3, (1, 8, 8)
NUM_ROWS = NUM_CLASSES * PER_CLASS
NETWORK = ConvNet(depth=2, width=4)
# Batches of 9 and 6: over 2 ranks 5 + 4 and 3 + 3, over 4 ranks 3 + 2 + 2 + 2 and 2 + 2 + 1 + 1.
BATCH = 9


def method(**settings) -> TrajectoryMatching:
    """Four segments of four student steps, all augmentations, all three things learned."""
    common = dict(
        segments=Window(3), student_steps=4, expert_epochs=1, batch_size=BATCH, student_learning_rate=0.1,
        segments_per_outer_step=4, gate=None, augment=Siamese(), labels=ExpertEnsemble(),
        label_optimizer=ParameterSGD(2.0, 0.9),
    )  # fmt: skip
    sgd = ParameterSGD(1.0, 0.5), ParameterSGD(1e-3, 0.5)
    return TrajectoryMatching(*sgd, **{**common, **settings})


def starting() -> dict[str, torch.Tensor]:
    """The set before the first outer step."""
    return {
        "images": torch.randn(NUM_ROWS, *SHAPE, generator=generator(0, "images")),
        "labels": torch.randn(NUM_ROWS, NUM_CLASSES, generator=generator(0, "labels")),
        "classes": torch.arange(NUM_CLASSES).repeat_interleave(PER_CLASS),
        "learning_rate": torch.tensor(0.1),
    }


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


def job(checkpoints, dtype=torch.float32, **settings) -> SetJob:
    """The job, its student smooth: with ReLU two correct float32 paths flip masks (docs/derivations)."""
    made = SetJob(method(**settings), 0, 3, NETWORK, SHAPE, NUM_CLASSES, Drifting(dtype), checkpoints)
    for module in made.student.network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.Softplus())
    made.student.to(torch.device("cpu"), dtype)
    return made


class Caught:
    """An engine that only catches the gradient of one outer step, in any precision."""

    num_rows = NUM_ROWS

    def __init__(self, ranks, parted: bool, dtype):
        now = {name: t.to(dtype) if t.is_floating_point() else t for name, t in starting().items()}
        first, last = ranks.layout.kept(NUM_ROWS) if parted else (0, NUM_ROWS)
        rows = now["images"][first:last], now["labels"][first:last]
        self.held, self.span, self.ranks = Held(first, *rows, now["learning_rate"]), (first, last), ranks

    def read(self):
        return self.held

    def step(self, gradient: MatchingGradient):
        """Put the parts of all ranks together, as the contract of engines says: they add up."""
        first, last = self.span
        images = torch.zeros(NUM_ROWS, *SHAPE, dtype=gradient.images.dtype)
        labels = torch.zeros(NUM_ROWS, NUM_CLASSES, dtype=gradient.images.dtype)
        images[first:last], labels[first:last] = gradient.images, gradient.labels
        rate = gradient.learning_rate.clone()
        parts = {"images": images, "labels": labels, "learning_rate": rate}
        self.whole = {name: self.ranks.sum(part) for name, part in parts.items()}
        return torch.zeros((), dtype=torch.float64)

    def keep_rate(self, floor):
        return False

    def rate(self):
        return self.held.learning_rate.item()


def ranks_of(rank, num_groups: int) -> TorchRanks:
    """The ranks of a gang as a grid, for each grid one."""
    known = rank.__dict__.setdefault("grids", {})
    if num_groups not in known:
        known[num_groups] = TorchRanks(num_groups)
    return known[num_groups]
