"""The network that labels batches anew, where a protocol asks for one."""

from typing import Any

import torch
from torch import Tensor

from distributed_dd.data.cache import cached
from distributed_dd.data.splits import content_sha256
from distributed_dd.evaluation.settings import Evaluation
from distributed_dd.family import plain
from distributed_dd.learning.chance import generator
from distributed_dd.learning.device import device
from distributed_dd.learning.loop import Recipe, Training
from distributed_dd.learning.networks import NETWORKS, Network, initialised
from distributed_dd.outer.ports import Cluster, Progress


def teacher_of(
    network: Network, evaluation: Evaluation, seed: int, material: Any, cluster: Cluster, progress: Progress
) -> Tensor | None:
    """Parameters (P,) of a network trained on all real training images, from the cache; None where none is asked for.

    It is trained by the recipe in ``evaluate`` for ``num_epochs_full_data`` epochs, whatever the protocol.
    """
    if evaluation.protocol.labels != "teacher":
        return None
    recipe = evaluation.bare(num_epochs=evaluation.num_epochs_full_data)
    train = material.train
    identity = {
        "teacher": [NETWORKS.kind_of(network), plain(network)],
        "recipe": plain(recipe),
        "seed": seed,
        "images_sha256": content_sha256(train.images, train.targets),
    }

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        ((_, theta_P),) = cluster.map(_trained, [seed], (network, recipe, train, material.splits.num_classes))
        return {"theta": theta_P}, {}

    return cached("training a teacher on all real images", identity, make, progress.say)[0]["theta"]


def _trained(seed: int, shared: tuple[Network, Recipe, Any, int]) -> Tensor:
    """The parameters after training, as a task on a cluster."""
    (network, recipe, train, num_classes), where = shared, device()
    shape = (train.images.shape[1], train.images.shape[2], train.images.shape[3])
    layers = initialised(network, shape, num_classes, generator(seed, "teacher", "start")).to(where)
    training = Training(layers, train.images.to(where), train.targets.to(where), recipe, (seed, "teacher"))
    training.run_to_end()
    with torch.no_grad():
        return training.theta_P.cpu()
