"""Gradient matching: DC (Zhao et al., ICLR 2021), with an augmentation DSA (Zhao and Bilen, ICML 2021)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import cross_entropy

from distributed_dd.data import Facts
from distributed_dd.errors import ConfigError
from distributed_dd.evaluation.product import Tensors
from distributed_dd.evaluation.words import Words
from distributed_dd.family import choice, setting
from distributed_dd.learning.augment import AUGMENTATIONS, Augmentation, Identity
from distributed_dd.learning.chance import generator
from distributed_dd.learning.device import device
from distributed_dd.learning.flat import Student, flatten
from distributed_dd.learning.networks import initialised
from distributed_dd.learning.update_rules import SGD, UPDATE_RULES, UpdateRule, check_learns
from distributed_dd.nested import laid_over
from distributed_dd.outer.by_class import (
    ByClass,
    check_no_mixing,
    check_shared,
    division_by_class,
    gathered,
    notes_on_batches,
)
from distributed_dd.outer.division import Division, mixing_layers
from distributed_dd.outer.learner import Learner
from distributed_dd.outer.method import Seat
from distributed_dd.outer.scale import Scale, Work
from distributed_dd.outer.set_method import SetMethod, work_of_a_set
from distributed_dd.outer.starting import PLAIN_STARTS, Noise, PlainStart, hard_labelled
from distributed_dd.outer.world import World

LOOPS = {1: (1, 0), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
"""Images per class -> outer steps with one network, its epochs on the set between them; as published."""
EPSILON = 1e-6
NETWORK = "network"


@dataclass(frozen=True, kw_only=True)
class GradientMatching(SetMethod):
    """Match a network's gradients on the set to those on real images (DC, ICLR 2021; DSA, ICML 2021)."""

    name: str = setting("the method's name in reports", "dc")
    image_optimizer: UpdateRule = choice(UPDATE_RULES, "update rule of the images", SGD(0.1, 0.5))
    batch_size: int = setting("real images of each class per outer step (all, where there are fewer)", 256, at_least=1)
    steps_per_network: int | None = setting(
        "outer steps with one network, then the next is made (null: as published for the images per class)",
        None,
        at_least=1,
    )
    network_epochs: int | None = setting(
        "epochs of the network on the set after each of them but the last (null: as published)", None
    )
    network_batch_size: int = setting("synthetic images per step of the network", 256, at_least=1)
    network_learning_rate: float = setting("of these steps, SGD without momentum", 0.01, above=0)
    distance: Literal["row_cosine", "squared_error", "cosine"] = setting(
        "of two gradients: 1 - cosine output row by output row, summed; their squared difference; 1 - one cosine",
        "row_cosine",
    )
    start: PlainStart = choice(PLAIN_STARTS, "starting images", Noise())
    augment: Augmentation = choice(
        AUGMENTATIONS, "of real and synthetic images of a class alike (DSA: dsa, shared)", Identity()
    )
    network_augment: Augmentation = choice(AUGMENTATIONS, "where the network learns from the set", Identity())

    words: ClassVar[Words] = Words(
        losses={"matching_loss": "matching loss"},
        noted={"matching_loss": "matching loss"},
        parameters={
            "method.image_optimizer.learning_rate": "lr images",
            "method.network_learning_rate": "lr network",
        },
    )

    def __post_init__(self) -> None:
        check_shared(self.augment)
        check_learns(self.image_optimizer, "image_optimizer")

    def loops(self, images_per_class: int) -> tuple[int, int]:
        """Outer steps with one network, and its epochs on the set after each but the last.

        Raises:
            ConfigError: nothing was published for so many images per class, and nothing is set.
        """
        steps, epochs = LOOPS.get(images_per_class, (None, None))
        steps = self.steps_per_network if self.steps_per_network is not None else steps
        epochs = self.network_epochs if self.network_epochs is not None else epochs
        missing = [f"method.{n}" for n, v in (("steps_per_network", steps), ("network_epochs", epochs)) if v is None]
        if steps is None or epochs is None:
            known = "; ".join(f"{size}: {steps}, {epochs}" for size, (steps, epochs) in LOOPS.items())
            raise ConfigError(
                missing[0],
                f"nothing was published for {images_per_class} images per class",
                allowed="numbers of your own; published, as images per class: steps_per_network, network_epochs: "
                f"{known}",
                fix=" ".join(f"{name}=.." for name in missing),
            )
        return steps, epochs

    @classmethod
    def begun_from(cls, values: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
        """With the loops of the nearest published size, where none were published for this one."""
        size = values["images_per_class"]
        if size in LOOPS:
            return dict(values)
        steps, epochs = LOOPS[min(LOOPS, key=lambda known: abs(known - size))]
        return laid_over(values, {"method.steps_per_network": steps, "method.network_epochs": epochs})

    def optimizers(self) -> dict[str, UpdateRule]:
        """Of the images alone."""
        return {"images": self.image_optimizer}

    def starting_set(self, world: World) -> Tensors:
        """As `start` says, with hard labels."""
        return hard_labelled(self.start, world)

    def check(self, world: World) -> None:
        """Refuse loops that nobody published, and a network that looks at several images at once."""
        self.loops(world.images_per_class)
        layers = initialised(world.network, world.image_shape, world.num_classes, generator(0, "layout"))
        check_no_mixing(mixing_layers(layers, "network"))
        Student(layers)

    def notes(self, world: World) -> list[str]:
        """Classes that have fewer real images than a batch."""
        return notes_on_batches(world, self.batch_size)

    def steps(self, world: World, seat: Seat) -> "GradientSteps":
        """A network for some outer steps, which learns from the set between them."""
        return GradientSteps(self, world, seat)

    def turn(self, world: World) -> int:
        """Outer steps with one network."""
        return self.loops(world.images_per_class)[0]

    def division(self, world: World) -> Division:
        """Classes, or rows."""
        return division_by_class(world)

    def work(self, scale: Scale) -> Work:
        """Gradients of both, one of them differentiated; the network's own steps."""
        steps, epochs = self.loops(scale.images_per_class)
        num_images = scale.facts.num_classes * scale.images_per_class
        training = 3 * epochs * num_images * (steps - 1) / steps
        passes = 3 * scale.facts.num_classes * self.batch_size + 9 * num_images + training
        return work_of_a_set(scale, passes)


class GradientSteps(ByClass):
    """The statistic of a class is the gradient of its mean loss by the parameters of the network in use."""

    def __init__(self, method: GradientMatching, world: World, seat: Seat) -> None:
        super().__init__(world, seat, method.batch_size, method.augment)
        self.method = method
        self.num_steps, self.num_epochs = method.loops(world.images_per_class)
        layers = initialised(world.network, world.image_shape, world.num_classes, generator(0, "layout"))
        self.student = Student(layers).to(device(), torch.float32)
        self.theta_P: Tensor | None = None
        """As the next outer step needs it; None where that begins with a fresh network."""

    def begin(self, step: int, like: Tensor) -> None:
        """At the beginning of a turn make a fresh network; otherwise keep the one that learned from the set."""
        turn, place = divmod(step, self.num_steps)
        if place == 0:
            world, rng = self.world, generator(self.world.seed, NETWORK, turn)
            self.theta_P = flatten(initialised(world.network, world.image_shape, world.num_classes, rng))
        if self.theta_P is None:
            raise RuntimeError(f"outer step {step} needs the network of the step before it")
        self.theta_P = self.theta_P.to(like.device, like.dtype)

    def depends_on_set(self, step: int) -> bool:
        """Where the network learned from it before."""
        return step % self.num_steps != 0

    def statistic(self, images: Tensor, number: int) -> Tensor:
        """The gradient (P,) of the mean cross-entropy of images of one class."""
        assert self.theta_P is not None
        classes = torch.full((len(images),), number, device=images.device)
        return self._slope(self.theta_P, images, classes, images.requires_grad)

    @torch.enable_grad()
    def _slope(self, theta_P: Tensor, images: Tensor, classes: Tensor, graph: bool) -> Tensor:
        theta_P = theta_P.detach().requires_grad_()
        loss = cross_entropy(self.student.logits(theta_P, images), classes)
        return torch.autograd.grad(loss, theta_P, create_graph=graph)[0]

    def distance(self, synthetic: Tensor, real: Tensor) -> Tensor:
        """Between two gradients (P,), as published: row by row biases and gains of norms do not count."""
        if self.method.distance == "squared_error":
            return (synthetic - real).square().sum()
        if self.method.distance == "cosine":
            return (1 - _cosine(synthetic[None], real[None])).sum()
        pairs = zip(*(g.split(self.student.sizes) for g in (synthetic, real)), self.student.shapes, strict=True)
        matrices = [(a.reshape(shape[0], -1), b.reshape(shape[0], -1)) for a, b, shape in pairs if len(shape) > 1]
        return torch.stack([(1 - _cosine(a, b)).sum() for a, b in matrices]).sum()

    def updated(self, step: int, learner: Learner) -> dict[str, float]:
        """Between the outer steps of a turn the network takes some epochs on the set as it is now."""
        if (step + 1) % self.num_steps == 0:
            self.theta_P = None
            return {}
        images = gathered(learner.kept()["images"], len(self.seat.classes), self.ranks)
        classes = self.seat.classes.to(images.device)
        for epoch in range(self.num_epochs):
            rng = generator(self.world.seed, "on the set", step, epoch)
            for batch in torch.randperm(len(images), generator=rng).split(self.method.network_batch_size):
                augment = self.method.network_augment.draw(rng, len(batch))
                index = batch.to(images.device)
                self._learn(augment(images[index]), classes[index])
        if self.theta_P is not None:  # ranks on different hardware round differently, and must not drift apart
            self.theta_P = self.ranks.first_of_group(self.theta_P)
        return {}

    def _learn(self, images: Tensor, classes: Tensor) -> None:
        assert self.theta_P is not None
        slope = self._slope(self.theta_P, images, classes, False)
        self.theta_P = self.theta_P - self.method.network_learning_rate * slope

    def state(self) -> Tensors:
        """The parameters of the network in use; nothing between two turns."""
        return {} if self.theta_P is None else {NETWORK: self.theta_P.clone()}

    def load(self, state: Tensors) -> None:
        """Take back the network of the turn, where the next outer step is within one."""
        theta_P: Any = state.get(NETWORK)
        self.theta_P = None if theta_P is None else theta_P.to(device())


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """Of rows (m, k) with rows, (m,); a row that is zero has cosine 0 with any."""
    return (a * b).sum(1) / (vector_norm(a, dim=1) * vector_norm(b, dim=1) + EPSILON)
