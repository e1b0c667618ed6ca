"""What every rank of the distillation of a generator does; where there is one, it is the only rank."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from distributed_dd.data import Fitted, Images
from distributed_dd.errors import DivergedError
from distributed_dd.learning.augment import part_of
from distributed_dd.learning.chance import generator
from distributed_dd.learning.device import device
from distributed_dd.learning.flat import flatten
from distributed_dd.learning.networks import initialised
from distributed_dd.learning.networks.batch_norm import SummedOverRanks, batch_norms
from distributed_dd.learning.networks.blocks import FeatureNetwork, layer_named
from distributed_dd.learning.networks.generator import conditioned
from distributed_dd.methods.generative.draws import CriticDraw, Phase, StepDraw
from distributed_dd.methods.generative.losses import Adversaries, Losses, Matching
from distributed_dd.methods.generative.pool import PoolJob, Trained
from distributed_dd.methods.generative.pool import chain as pool_chain
from distributed_dd.methods.generative.settings import GenerativeSettings
from distributed_dd.outer.checkpoint import Checkpoints, Packed, Saved, Shard
from distributed_dd.outer.ports import Chain, RankTools
from distributed_dd.outer.world import World
from distributed_dd.unroll import Layout

NETWORKS = ("generator", "discriminator")
AVERAGE = "average"


@dataclass(frozen=True, kw_only=True)
class GenerativeJob:
    """The training of a conditional GAN, or the distillation of its generator, as it is told to every rank.

    Attributes:
        phase: which of the two.
        real: training images as they are stored. pool: the same as networks see them, and how they learn.
        fitted: pixels in [0, 1] to what networks see.
    """

    method: GenerativeSettings
    phase: Phase
    seed: int
    real: Images
    fitted: Fitted
    pool: PoolJob | None
    image_shape: tuple[int, int, int]
    num_classes: int
    checkpoints: Checkpoints

    @staticmethod
    def of(method: GenerativeSettings, phase: Phase, world: World, checkpoints: Checkpoints) -> "GenerativeJob":
        """The job of a phase of ``method`` (settings of `Generative`), from the driver's world."""
        real, pool = world.real, None
        if phase.matched:
            pool = PoolJob(
                pool=method.pool,
                seed=world.seed,
                train=real.train,
                num_classes=world.num_classes,
                end=world.num_outer_steps,
            )
        return GenerativeJob(
            method=method,
            phase=phase,
            seed=world.seed,
            real=real.pixels,
            fitted=real.fitted,
            pool=pool,
            image_shape=world.image_shape,
            num_classes=world.num_classes,
            checkpoints=checkpoints,
        )

    @property
    def chain(self) -> Chain | None:
        """The networks of the pool, trained ahead."""
        return None if self.pool is None else pool_chain(self.pool)

    def worker(self, saved: Saved, tools: RankTools) -> "GenerativeWorker":
        """What makes this rank's outer steps, from a checkpoint on."""
        return GenerativeWorker(self, saved, tools)

    def starting(self) -> dict[str, Tensor]:
        """Both networks as they are made, and Adam that has seen nothing."""
        tensors: dict[str, Tensor] = {}
        for name in NETWORKS:
            rng = generator(self.seed, "gan", name, "start")
            theta_P = flatten(initialised(getattr(self.method, name), self.image_shape, self.num_classes, rng))
            state = {
                "theta": theta_P,
                "mean": torch.zeros_like(theta_P),
                "square": torch.zeros_like(theta_P),
                "updates": torch.zeros(()),
            }
            tensors |= {f"{name}.{key}": value for key, value in state.items()}
        if self.method.ema_decay is not None:
            tensors[AVERAGE] = tensors["generator.theta"].clone()
        return tensors


class GenerativeWorker:
    """Makes outer steps on the part of every batch that falls to this rank."""

    def __init__(self, job: GenerativeJob, saved: Saved, tools: RankTools) -> None:
        self.job, self.ranks = job, tools.ranks
        method, phase, where = job.method, job.phase, device()
        adams = phase.generator_optimizer, phase.discriminator_optimizer
        # One learner for each: the two networks are updated at different times.
        self.learners = {
            name: tools.learner(saved, {f"{name}.theta": adam}) for name, adam in zip(NETWORKS, adams, strict=True)
        }
        layers = self._layers("generator"), self._layers("discriminator")
        self.adversaries = Adversaries(*layers, method.precision, channels_last=where.type == "cuda")
        if self.ranks.layout.num_ranks > 1:
            for norm in batch_norms(layers[0]):
                norm.summed = self._summed
        self.real, self.classes = job.real.images.to(where), job.real.targets.to(where)
        self.dtype = self._theta("generator").dtype
        self.fitted = Fitted(**{name: self._like(t) for name, t in job.fitted.tensors().items()})
        self.average = saved.value(AVERAGE).to(where) if AVERAGE in saved.names() else None

    def _theta(self, name: str) -> Tensor:
        """The parameters (P,) of a network as they are now."""
        return self.learners[name].read().tensors[f"{name}.theta"]

    def _like(self, values: Tensor) -> Tensor:
        """Numbers as the networks compute with them, on the device."""
        return values.to(device(), self.dtype)

    def _layers(self, name: str) -> Any:
        job = self.job
        member = getattr(job.method, name)
        return initialised(member, job.image_shape, job.num_classes, generator(0, "layout")).to(device())

    def _summed(self, part: Tensor) -> Tensor:
        return SummedOverRanks.apply(part, self.ranks.sum)

    @cached_property
    def _judges(self) -> list[FeatureNetwork]:
        """The kinds of the pool as functions of their parameters, on the device."""
        assert self.job.pool is not None
        judges = []
        for number, member in enumerate(self.job.method.pool.networks):
            layers = initialised(member, self.job.image_shape, self.job.num_classes, generator(0, "layout")).to(
                device()
            )
            layer = layer_named(layers, self.job.method.pool.layer(number), f"method.pool.layers[{number}]")
            channels_last = device().type == "cuda"
            judges.append(FeatureNetwork(layers, layer, self.job.method.precision, channels_last))
        return judges

    def outer_step(self, step: int, prepared: Trained | None = None) -> dict[str, float]:
        """Draw; differentiate, agree and update the generator, then the discriminator; what was measured.

        Raises:
            DivergedError: on all ranks, where a number stopped being finite on any; that network was not
                updated.
        """
        job = self.job
        draw = job.method.draw(step, job.phase, job.seed, len(self.real), job.num_classes)
        metrics = self._update_generator(step, draw, prepared)
        for critic in draw.critic:
            judged = self._update_discriminator(step, critic)
        self._update_average()
        return metrics | judged

    def _update_generator(self, step: int, draw: StepDraw, prepared: Trained | None) -> dict[str, float]:
        method, total = self.job.method, len(draw.real)
        first, last = self._own(total)
        real, classes = self._real(draw.real[first:last])
        noise = conditioned(self._like(draw.noise[first:last]), classes, self.job.num_classes)
        thetas = {name: self._theta(name) for name in NETWORKS}
        losses, gradient = self.adversaries.generator_step(
            thetas["generator"],
            thetas["discriminator"],
            noise,
            classes,
            real,
            total,
            method.classification_weight,
            self._matching(step, draw, prepared),
        )
        metrics = self._agreed(step, "generator", losses, gradient)
        self.learners["generator"].step({"generator.theta": gradient})
        return metrics

    def _update_discriminator(self, step: int, draw: CriticDraw) -> dict[str, float]:
        method, total = self.job.method, len(draw.real)
        first, last = self._own(total)
        real, classes = self._real(draw.real[first:last])
        asked = draw.classes[first:last].to(classes.device)
        noise = conditioned(self._like(draw.noise[first:last]), asked, self.job.num_classes)
        thetas = {name: self._theta(name) for name in NETWORKS}
        losses, gradient = self.adversaries.discriminator_step(
            thetas["generator"],
            thetas["discriminator"],
            noise,
            asked,
            real,
            classes,
            draw.mix[first:last].to(classes.device),
            total,
            method.classification_weight,
            method.gradient_penalty,
        )
        metrics = self._agreed(step, "discriminator", losses, gradient)
        self.learners["discriminator"].step({"discriminator.theta": gradient})
        return metrics

    def _own(self, total: int) -> tuple[int, int]:
        """The places of a batch that this rank computes."""
        layout: Layout = self.ranks.layout
        return layout.part(total)

    def _real(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Real images in [-1, 1] and their classes."""
        index = index.to(self.real.device)
        images = Images(self.real[index], self.classes[index])
        return self._like(images.pixels()) * 2 - 1, images.targets

    def _matching(self, step: int, draw: StepDraw, prepared: Trained | None) -> Matching | None:
        job, method = self.job, self.job.method
        if job.pool is None or prepared is None:
            return None
        turn, place = method.pool.place(step)
        theta_P = self._like(prepared.at(place))
        augment = part_of(draw.augment, *self._own(len(draw.real)))
        return Matching(
            network=self._judges[job.pool.kind(turn)],
            theta_P=theta_P,
            seen=lambda x: self.fitted.apply((x + 1) / 2),
            augment=augment,
            global_weight=method.global_weight,
            local_weight=method.local_weight,
            logits=method.logits,
            features=method.features,
            summed=self._summed,
            num_ranks=self.ranks.layout.num_ranks,
        )

    def _agreed(self, step: int, who: str, losses: Losses, gradient: Tensor) -> dict[str, float]:
        """Losses summed over ranks, by their names in metrics; all ranks see a number that is not finite."""
        bad = torch.tensor(0.0 if bool(gradient.isfinite().all()) else 1.0, device=gradient.device)
        parts = torch.stack([*losses.values(), bad]).double()
        *values, bad_ranks = self.ranks.sum(parts).tolist()
        metrics = {f"{who}_{name}": value for name, value in zip(losses, values, strict=True)}
        if bad_ranks or not all(map(_finite, values)):
            listed = ", ".join(f"{name} {value:g}" for name, value in metrics.items())
            raise DivergedError(
                f"outer step {step}",
                f"a loss of the {who} or its gradient is not finite ({listed}); the update was not made",
                allowed="finite numbers",
                fix=f"lower {'method.gan' if self.job.phase.key == 'gan' else 'method'}.{who}_optimizer."
                f"learning_rate; the state before this step is in {self.job.checkpoints.folder}",
            )
        return metrics

    @torch.no_grad()
    def _update_average(self) -> None:
        if self.average is not None and self.job.method.ema_decay is not None:
            self.average.lerp_(self._theta("generator"), 1 - self.job.method.ema_decay)

    def save(self, step: int) -> Shard | None:
        """Write what `packed` gives."""
        packed = self.packed(step)
        return None if packed is None else self.job.checkpoints.write(packed)

    def packed(self, step: int) -> Packed | None:
        """Both networks; what ranks hold in parts is put together for the first, which writes."""
        tensors: dict[str, Tensor] = {}
        for learner in self.learners.values():
            tensors |= learner.kept() | learner.slots()
        if self.average is not None:
            tensors[AVERAGE] = self.average
        if self.ranks.layout.rank != 0:
            return None
        return self.job.checkpoints.pack(step, 0, 1, 0, {k: v.cpu() for k, v in tensors.items()})


def _finite(value: float) -> bool:
    return value - value == 0
