"""The distillation of a generator of milliseconds, whose ranks can be compared with one process."""

import torch

from distributed_dd.data import Images
from distributed_dd.data.whitening import Standardise
from distributed_dd.learning.chance import generator
from distributed_dd.learning.networks import ConvNet
from distributed_dd.learning.networks.discriminator import ConvDiscriminator
from distributed_dd.learning.networks.generator import ConvGenerator
from distributed_dd.methods.generative.method import Generative
from distributed_dd.methods.generative.pool import PoolJob
from distributed_dd.methods.generative.pool_settings import Pool
from distributed_dd.methods.generative.steps import GenerativeJob
from distributed_dd.outer.learner import Held, require_gradients

NUM_CLASSES, SHAPE = 3, (1, 8, 8)
# Over 2 ranks 5 + 4 rows, over 4 ranks 3 + 2 + 2 + 2.
BATCH = 9


def job(checkpoints) -> GenerativeJob:
    """Both losses, Siamese augmentation for each pair, two judges."""
    pixels = torch.rand(20, *SHAPE, generator=generator(0, "images"))
    real = Images(pixels, torch.arange(20) % NUM_CLASSES)
    fitted = Standardise().fit(pixels)
    pool = Pool(networks=(ConvNet(2, 4), ConvNet(1, 4)), steps_per_network=4, net_steps=2, batch_size=8)
    method = Generative(
        generator=ConvGenerator(4, 8),
        discriminator=ConvDiscriminator(4),
        batch_size=BATCH,
        pool=pool,
        global_weight=1.0,
        local_weight=0.1,
    )
    judged = PoolJob(pool=pool, seed=0, train=Images(fitted.apply(pixels), real.targets), num_classes=NUM_CLASSES)
    phase = method.phase("distil")
    return GenerativeJob(
        method=method,
        phase=phase,
        seed=0,
        real=real,
        fitted=fitted,
        pool=judged,
        image_shape=SHAPE,
        num_classes=NUM_CLASSES,
        checkpoints=checkpoints,
    )


def layers():
    """The generator's layers."""
    return ConvGenerator(4, 8).build(SHAPE, NUM_CLASSES)


class _Network:
    """Parameters in float64; an update only catches the gradient, summed over ranks."""

    def __init__(self, tensors, ranks, catch):
        self.tensors, self.ranks, self.catch = tensors, ranks, catch

    def read(self):
        return Held(0, self.tensors)

    def step(self, gradients):
        require_gradients(gradients, self.tensors)
        for name, gradient_P in gradients.items():
            self.catch[name.removesuffix(".theta")] = self.ranks.sum(gradient_P.clone())
        return torch.zeros((), dtype=torch.float64)


class Caught:
    """Tools of a rank whose learners catch the gradients of one outer step, by network."""

    def __init__(self, ranks, where="cpu"):
        self.ranks, self.gradients, self.where = ranks, {}, where

    def learner(self, saved, rules):
        """Of the networks that ``rules`` name."""
        tensors = {name: saved.value(name).double().to(self.where) for name in rules}
        return _Network(tensors, self.ranks, self.gradients)
