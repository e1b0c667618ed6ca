"""A row of the report that is no usual training: exactly the steps that the set was made for."""

from typing import Any

import torch
from torch import Tensor

from distributed_dd.evaluation.rows import Entry
from distributed_dd.evaluation.scoring import row
from distributed_dd.learning.chance import generator
from distributed_dd.learning.device import device
from distributed_dd.learning.flat import flatten
from distributed_dd.learning.loop import share_right
from distributed_dd.learning.networks import NETWORKS, initialised
from distributed_dd.methods.performance_matching.settings import PerformanceSettings
from distributed_dd.methods.performance_matching.students import Known
from distributed_dd.outer.student import student_of
from distributed_dd.unroll import At, Measured, Problem, Whole
from distributed_dd.unroll.replayed import student_step

STEPS = "own_steps"
BATCH = 1024


def own_steps(method: PerformanceSettings, entry: Entry) -> list[dict[str, Any]]:
    """Networks that make the N steps of the distillation, with its rates and no augmentation, on the test split."""
    world, count = entry.world, entry.world.evaluate.num_networks
    tensors = {name: tensor.to(device()) for name, tensor in entry.distilled.tensors.items()}
    tensors["learning_rate"] = torch.tensor(entry.distilled.learning_rate, device=device())
    if isinstance(method.source, Known):
        keys: list[tuple[str | int, ...]] = [("known network",)]
    else:
        keys = [("own steps", number) for number in range(count)]
    accuracies = []
    for number, key in enumerate(keys):
        layers = initialised(world.network, world.image_shape, world.num_classes, generator(world.seed, *key))
        accuracies.append(_accuracy(method, entry, tensors, flatten(layers).to(device()), number))
    kind = "hard" if method.labels.rule is None else "soft"
    return [row(STEPS, NETWORKS.kind_of(world.network), kind, accuracies)]


def _accuracy(
    method: PerformanceSettings, entry: Entry, tensors: dict[str, Tensor], theta_P: Tensor, number: int
) -> float:
    world, steps = entry.world, method.student_steps
    student = student_of(method, world)
    rng = generator(world.seed, "own steps", number, "batches")
    batches = method.batches.draw(entry.distilled.targets, steps, rng)
    gradient, _ = student_step(student, False)
    trained = Problem(
        student=student,
        theta_start_P=theta_P,
        ends=At({steps: Measured(lambda theta_P: theta_P.sum())}),
        rows=Whole((tensors["images"], tensors["labels"]), [batch.to(device()) for batch in batches]),
        learning_rate=method.rates.read(tensors, method.student_learning_rate, steps),
        rule=method.rule,
        first_back=steps,  # no step is kept
        augment=[lambda images: images] * steps,
    ).forward(gradient)
    test = world.real.test
    with torch.no_grad():
        logits = [student.logits(trained.end.theta_P, images.to(device())).cpu() for images in test.images.split(BATCH)]
    return share_right(torch.cat(logits), test.targets)
