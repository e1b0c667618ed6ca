"""One outer step on a generator and its discriminator as pure functions of their flat parameters.

What is random is handed in; what a rank computes are its rows of the batch, and parts of losses and gradients
add up over ranks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distributed_dd.learning.augment import Drawn
from distributed_dd.learning.flat import FlatNetwork
from distributed_dd.learning.networks.blocks import FeatureNetwork
from distributed_dd.methods.generative.adversarial import discriminator_losses, generator_losses
from distributed_dd.methods.generative.correspondence import FeatureForm, LogitForm, Sum, global_loss, local_loss

Losses = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Matching:
    """A network of the pool, as it is now, and what is asked of it.

    Attributes:
        theta_P: its parameters.
        seen: images in [-1, 1] to its input.
        augment: applied to real and generated images alike.
        summed, num_ranks: the differentiable sum over ranks that share the batch.
    """

    network: FeatureNetwork
    theta_P: Tensor
    seen: Callable[[Tensor], Tensor]
    augment: Drawn
    global_weight: float
    local_weight: float
    logits: LogitForm
    features: FeatureForm
    summed: Sum
    num_ranks: int = 1

    def losses(self, fake_BCHW: Tensor, real_BCHW: Tensor, total: int) -> Losses:
        """Global and local loss, unweighted; what has no weight is left out."""
        with torch.no_grad():
            real_logits, real_features = self._look(real_BCHW)
        logits, features = self._look(fake_BCHW)
        losses = {}
        if self.global_weight:
            losses["global"] = global_loss(logits, real_logits, self.logits, total)
        if self.local_weight:
            losses["local"] = local_loss(features, real_features, self.features, total, self.summed, self.num_ranks)
        return losses

    def _look(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.look(self.theta_P, self.augment(self.seen(images_BCHW)))


class Adversaries:
    """Generator and discriminator as functions of flat parameters."""

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        precision: str = "float32",
        channels_last: bool = False,
    ) -> None:
        self.generator = FlatNetwork(generator, precision, channels_last)
        self.discriminator = FlatNetwork(discriminator, precision, channels_last)

    def generator_step(
        self,
        theta_G: Tensor,
        theta_D: Tensor,
        noise_BZ: Tensor,
        classes_B: Tensor,
        real_BCHW: Tensor,
        total: int,
        classification_weight: float,
        matching: Matching | None,
    ) -> tuple[Losses, Tensor]:
        """Losses of the generator (unweighted) and their weighted gradient (P_G,)."""
        leaf = theta_G.detach().requires_grad_()
        fake = self.generator.logits(leaf, noise_BZ)
        losses = generator_losses(self.discriminator.logits(theta_D.detach(), fake), classes_B, total)
        loss = losses["adversarial"] + classification_weight * losses["classification"]
        if matching is not None:
            matched = matching.losses(fake, real_BCHW, total)
            weights = {"global": matching.global_weight, "local": matching.local_weight}
            loss = loss + sum(weights[name] * value for name, value in matched.items())
            losses |= matched
        (gradient,) = torch.autograd.grad(loss, leaf)
        return {name: value.detach() for name, value in losses.items()}, gradient

    def discriminator_step(
        self,
        theta_G: Tensor,
        theta_D: Tensor,
        noise_BZ: Tensor,
        fake_classes_B: Tensor,
        real_BCHW: Tensor,
        classes_B: Tensor,
        mix_B: Tensor,
        total: int,
        classification_weight: float,
        penalty_weight: float,
    ) -> tuple[Losses, Tensor]:
        """Losses of the discriminator (unweighted) and their weighted gradient (P_D,)."""
        with torch.no_grad():
            fake = self.generator.logits(theta_G.detach(), noise_BZ)
        leaf = theta_D.detach().requires_grad_()
        losses = discriminator_losses(
            lambda images: self.discriminator.logits(leaf, images),
            real_BCHW,
            classes_B,
            fake,
            fake_classes_B,
            mix_B,
            total,
        )
        loss = classification_weight * losses["classification"] - losses["distance"]
        loss = loss + penalty_weight * losses["penalty"]
        (gradient,) = torch.autograd.grad(loss, leaf)
        return {name: value.detach() for name, value in losses.items()}, gradient
