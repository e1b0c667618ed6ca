"""How much a checkpoint's number format changes matching loss and image gradient.

    python sensitivity.py STORE CONFIG [key=value ..]

STORE holds float32 experts of CONFIG. At the first, middle and last start epoch of the window the same
segment is matched from the stored checkpoints and from the same ones rounded, on random real images.
"""

import sys
from pathlib import Path

import torch
from distributed_dd.distillation.chance import generator
from distributed_dd.distillation.networks import initialised
from distributed_dd.distillation.student import Student
from distributed_dd.distillation.unroll import Problem
from torch.nn.functional import cosine_similarity, one_hot

from distributed_dd.composition import experiment_from
from distributed_dd.trajectories.store import TrajectoryStore

store = TrajectoryStore.at(sys.argv[1])
e = experiment_from(Path(sys.argv[2]), sys.argv[3:])
splits, method = e.data.load(), e.method
student = Student(initialised(e.network, splits.image_shape, splits.num_classes, torch.Generator()))
count = e.images_per_class * splits.num_classes


def matched(start_epoch, start, target):
    """Matching loss and gradients of one segment."""
    index = torch.randperm(len(splits.train), generator=generator(0, str(start_epoch)))[:count]
    images = splits.train.pixels()[index]
    images = (images - images.mean()) / images.std()
    labels = 5.0 * one_hot(splits.train.targets[index], splits.num_classes).float()
    draw, rate = method.draw(0, 0, 1, count), torch.tensor(method.student_learning_rate)
    given = (student, start, target, images, labels, rate, draw.batches, draw.augment)
    return method.unroll(Problem(*given))


def main():
    """Print a table."""
    print("| start epoch | distance | format | error of the difference | matching loss | gradient cosine |")
    print("|---|---|---|---|---|---|")
    starts, trajectory = method.segments.starts(), store.open(0)
    for epoch in sorted({starts[0], starts[len(starts) // 2], starts[-1]}):
        start, target = (trajectory.checkpoint(at) for at in (epoch, epoch + method.expert_epochs))
        exact, distance = matched(epoch, start, target), (target - start).norm()
        for name, dtype in (("float16", torch.float16), ("bf16", torch.bfloat16)):
            a, b = start.to(dtype).float(), target.to(dtype).float()
            got, error = matched(epoch, a, b), ((b - a) - (target - start)).norm() / distance
            cosine = cosine_similarity(got.images.flatten(), exact.images.flatten(), 0)
            change = float(got.loss / exact.loss - 1)
            columns = (
                f"{epoch:g}",
                f"{distance:.3f}",
                name,
                f"{error:.2%}",
                f"{change:+.2%}",
                f"{cosine:.4f}",
            )
            print(f"| {' | '.join(columns)} |")


main()
