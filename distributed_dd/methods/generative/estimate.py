"""Memory, disk and work of a generative distillation, before anything starts."""

from collections.abc import Iterator
from functools import partial
from math import ceil, prod

import torch
from torch import nn

from distributed_dd.learning.networks import initialised
from distributed_dd.learning.networks.batch_norm import batch_norms
from distributed_dd.methods.generative.settings import GenerativeSettings
from distributed_dd.outer.scale import Scale, Work
from distributed_dd.outer.sharing import Sharing
from distributed_dd.outer.work import FLOAT, TRAIN_FACTOR, counted_once, evaluation_operations, forward_flops_of, size

# A generator step: its forward and backward (3), the discriminator's forward and backward to the image (2).
# A discriminator step: a forward of the generator; forward and backward on two batches (6); the penalty's
# forward and backward, and the backward of both (6).
GENERATOR_FACTORS, DISCRIMINATOR_FACTORS = (3, 2), (1, 6 + 6)
# Parameters, their gradient, Adam's two averages.
COPIES_IN_TRAINING = 4
# Sets that the report's networks train on; those of which are made anew in every epoch.
NUM_SETS, FRESH_SETS = 4, 2


def work_of(method: GenerativeSettings, scale: Scale) -> Work:
    """The estimate of a method with the settings of `Generative`."""
    facts, asked, recipe = scale.facts, scale.asked, scale.evaluate
    rng = torch.Generator()
    networks = [
        initialised(member, facts.image_shape, facts.num_classes, rng)
        for member in (method.generator, method.discriminator)
    ]
    examples = torch.zeros(1, method.generator.noise_size), torch.zeros(1, *facts.image_shape)
    generator, discriminator = (
        counted_once("operations of a forward pass", member, facts, partial(_flops, layers, example))
        for member, layers, example in zip((method.generator, method.discriminator), networks, examples, strict=True)
    )
    step = _per_image(generator, discriminator, method.discriminator_steps)
    missing = 1.0 if scale.missing is None else scale.missing
    gan = method.gan.num_steps * method.gan.batch_size * step * missing
    judges = [forward_flops_of(member, facts) for member in method.pool.networks] if method.matched else [0]
    judge = sum(judges) / len(judges)
    distill = scale.num_outer_steps * method.batch_size * (step + judge * (1 + TRAIN_FACTOR))
    pool = scale.num_outer_steps * method.pool.net_steps * method.pool.batch_size * TRAIN_FACTOR * judge
    num_images = scale.images_per_class * facts.num_classes
    num_sets = NUM_SETS + len(scale.evaluate.controls)
    evaluate = evaluation_operations(scale, num_images, num_sets, forward_flops_of(scale.network, facts))
    evaluate += FRESH_SETS * recipe.num_networks * recipe.num_epochs * num_images * generator
    operations = {"GAN": gan, "distill": distill, "pool": pool, "evaluate": evaluate}
    return Work([*_lines(method, scale, networks, asked)], operations)


def _lines(method: GenerativeSettings, scale: Scale, networks: list[nn.Module], asked: Sharing | None) -> Iterator[str]:
    facts = scale.facts
    counts = [sum(p.numel() for p in layers.parameters()) for layers in networks]
    generator_bytes = FLOAT * (counts[0] + sum(b.numel() for b in networks[0].buffers()))
    kept = (COPIES_IN_TRAINING - 1) * FLOAT * sum(counts)
    images = FLOAT * facts.num_classes * scale.images_per_class * prod(facts.image_shape)
    yield (
        f"disk      {size(kept)} for a checkpoint of generator ({counts[0]:,} parameters) and discriminator "
        f"({counts[1]:,}); the generator takes {size(generator_bytes)}, a frozen set {size(images)}"
    )
    largest = max(method.batch_size, method.gan.batch_size)
    yield (
        f"memory    {size(COPIES_IN_TRAINING * FLOAT * sum(counts))} for both networks in training, "
        f"{size(facts.num_train * prod(facts.image_shape))} of training images (four times that where they are "
        f"no bytes), torch itself and the activations of a batch of {largest}"
    )
    if asked is not None and asked.group_size > 1:
        part = ceil(largest / asked.group_size)
        yield f"          {asked.who}: the same or its part of it, and the activations of {part} images"


def _per_image(generator: float, discriminator: float, discriminator_steps: int) -> float:
    """Operations of an outer step for each image of its batch, the pool aside."""
    ours = GENERATOR_FACTORS[0] * generator + GENERATOR_FACTORS[1] * discriminator
    theirs = DISCRIMINATOR_FACTORS[0] * generator + DISCRIMINATOR_FACTORS[1] * discriminator
    return ours + discriminator_steps * theirs


def _flops(layers: nn.Module, example: torch.Tensor) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    for norm in batch_norms(layers):
        norm.standing = True  # one image has no statistics of a batch
    with counter, torch.no_grad():
        layers(example)
    return counter.get_total_flops()
