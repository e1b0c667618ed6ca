"""Memory, disk and work of a generative distillation, before anything starts."""

from collections.abc import Iterator
from math import ceil

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from distributed_dd.data import Facts
from distributed_dd.distillation.networks import Network, initialised
from distributed_dd.distillation.networks.batch_norm import batch_norms
from distributed_dd.stages.estimate import FLOAT, TRAIN_FACTOR, Sharing, forward_flops, size, work_line
from distributed_dd.stages.experiment import Experiment

# A generator step: its forward and backward (3), the discriminator's forward and backward to the image (2).
# A discriminator step: a forward of the generator; forward and backward on two batches (6); the penalty's
# forward and backward, and the backward of both (6).
GENERATOR_FACTORS, DISCRIMINATOR_FACTORS = (3, 2), (1, 6 + 6)
# Parameters, their gradient, Adam's two averages.
COPIES_IN_TRAINING = 4


def lines(e: Experiment, facts: Facts, gan_missing: bool, asked: Sharing | None = None) -> Iterator[str]:
    """The estimate, a line a topic. Operations count convolutions and products only."""
    method = e.generative
    rng = torch.Generator()
    made = [
        initialised(member, facts.image_shape, facts.num_classes, rng)
        for member in (method.generator, method.discriminator)
    ]
    counts = [sum(p.numel() for p in layers.parameters()) for layers in made]
    statistics = sum(b.numel() for b in made[0].buffers())
    whole = FLOAT * (counts[0] + statistics)
    kept = (COPIES_IN_TRAINING - 1) * FLOAT * sum(counts)
    images = FLOAT * facts.num_classes * e.images_per_class * torch.Size(facts.image_shape).numel()
    yield (
        f"disk      {size(kept)} for a checkpoint of generator ({counts[0]:,} parameters) and discriminator "
        f"({counts[1]:,}); the generator takes {size(whole)}, a frozen set {size(images)}"
    )
    largest = max(method.batch_size, method.gan.batch_size)
    data = facts.num_train * torch.Size(facts.image_shape).numel()
    yield (
        f"memory    {size(COPIES_IN_TRAINING * FLOAT * sum(counts))} for both networks in training, "
        f"{size(data)} of training images (four times that where they are no bytes), torch itself and "
        f"the activations of a batch of {largest}"
    )
    if asked is not None and asked.group_size > 1:
        part = ceil(largest / asked.group_size)
        yield f"          {asked.who}: the same or its part of it, and the activations of {part} images"
    generator = _flops(made[0], torch.zeros(1, method.generator.noise_size))
    discriminator = _flops(made[1], torch.zeros(1, *facts.image_shape))
    step = _per_image(generator, discriminator, method.discriminator_steps)
    gan = method.gan.num_steps * method.gan.batch_size * step * gan_missing
    judge = _mean([_forward(member, facts) for member in method.pool.networks]) if method.matched else 0.0
    distill = e.num_outer_steps * method.batch_size * (step + judge * (1 + TRAIN_FACTOR))
    pool = e.num_outer_steps * method.pool.net_steps * method.pool.batch_size * TRAIN_FACTOR * judge
    num_images = e.images_per_class * facts.num_classes
    forward = _forward(e.network, facts)
    trained = e.evaluate.num_networks * e.evaluate.num_epochs * num_images * TRAIN_FACTOR * forward
    fresh = e.evaluate.num_networks * e.evaluate.num_epochs * num_images * generator
    full = (
        e.evaluate.num_networks * e.evaluate.num_epochs_full_data * facts.num_train * TRAIN_FACTOR * forward
    )
    yield work_line(
        {"GAN": gan, "distill": distill, "pool": pool, "evaluate": 4 * trained + 2 * fresh + full}
    )


def _per_image(generator: float, discriminator: float, discriminator_steps: int) -> float:
    """Operations of an outer step for each image of its batch, the pool aside."""
    ours = GENERATOR_FACTORS[0] * generator + GENERATOR_FACTORS[1] * discriminator
    theirs = DISCRIMINATOR_FACTORS[0] * generator + DISCRIMINATOR_FACTORS[1] * discriminator
    return ours + discriminator_steps * theirs


def _forward(member: Network, facts: Facts) -> int:
    network = initialised(member, facts.image_shape, facts.num_classes, torch.Generator())
    return forward_flops(network, facts)


def _flops(layers: nn.Module, given: torch.Tensor) -> int:
    counter = FlopCounterMode(display=False)
    for norm in batch_norms(layers):
        norm.standing = True  # one image has no statistics of a batch
    with counter, torch.no_grad():
        layers(given)
    return counter.get_total_flops()


def _mean(values: list[int]) -> float:
    return sum(values) / len(values)
