"""Real images chosen to stand for all: the controls that a distilled set has to beat.

Rules work class by class on features (n, d) of the images of one class, and are deterministic but for k-means, which
takes a seed. Herding: Welling 2009, as in iCaRL (arXiv:1611.07725). k-centre: the greedy rule of Sener and Savarese
(arXiv:1708.00489). k-means: scikit-learn's. EL2N (arXiv:2107.07075) and forgetting (arXiv:1812.05159) rank images by
how hard networks find them: of EL2N the easiest are taken, which serve small sets best (arXiv:2206.14486), of
forgetting the most often forgotten, as in the tables of DC and DM.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor

from distributed_dd.data.cache import cached
from distributed_dd.outer.ports import Cluster, Progress

NUM_STARTS = 4
"""Times that k-means begins anew; the best of them counts."""


@dataclass(frozen=True)
class Coreset:
    """A control: each of its images is the mean of some real images, of one where images are chosen.

    Attributes:
        rule: how they were chosen. members: indices (m,) into the training images, class by class.
        image_of: the number (m,) of the image that a member belongs to, from 0 on.
    """

    rule: str
    members: Tensor
    image_of: Tensor

    def mean_of(self, values: Tensor) -> Tensor:
        """Means (k, ..) of ``values`` (n, ..), such as images or label logits of all training images, over members."""
        own = values[self.members]
        num_images = int(self.image_of.max()) + 1
        sums = torch.zeros(num_images, *own.shape[1:], dtype=own.dtype).index_add_(0, self.image_of, own)
        counts = torch.bincount(self.image_of, minlength=num_images).to(own.dtype)
        return sums / counts.reshape(-1, *[1] * (own.dim() - 1))

    @property
    def is_synthetic(self) -> bool:
        """Whether an image of it is the mean of several."""
        return len(self.members) > int(self.image_of.max()) + 1


def herding(features: Tensor, number: int) -> Tensor:
    """Indices (k,) such that the mean of the first 1, 2, .. of them stays close to the mean of all."""
    features = features.double()
    mean, total = features.mean(0), torch.zeros_like(features[0])
    free = torch.ones(len(features), dtype=torch.bool)
    chosen = []
    for count in range(1, number + 1):
        # |mean - (total + x) / count|^2 without the terms that no x changes.
        wanted = count * mean - total
        distances = features.square().sum(1) - 2 * features @ wanted
        distances[~free] = torch.inf
        index = int(distances.argmin())
        chosen.append(index)
        free[index] = False
        total += features[index]
    return torch.tensor(chosen)


def k_center(features: Tensor, number: int) -> Tensor:
    """Indices (k,): first the one nearest to the mean, then each time the one farthest from all chosen."""
    features = features.double()
    first = int((features - features.mean(0)).square().sum(1).argmin())
    chosen = [first]
    nearest = (features - features[first]).square().sum(1)
    for _ in range(1, number):
        nearest[chosen] = -1.0
        index = int(nearest.argmax())
        chosen.append(index)
        nearest = torch.minimum(nearest, (features - features[index]).square().sum(1))
    return torch.tensor(chosen)


def clusters(features: Tensor, number: int, seed: int) -> tuple[Tensor, Tensor]:
    """k-means: the cluster (n,) of every row, and centroids (k, d). No cluster is empty."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    values = features.numpy().astype(numpy.float64)
    # scikit-learn takes all cores unless told otherwise; a task has those that torch was told of.
    with threadpool_limits(torch.get_num_threads()), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of images that are equal, which is dealt with below
        found = KMeans(number, n_init=NUM_STARTS, random_state=seed).fit(values)
    labels = torch.from_numpy(found.labels_).long()
    counts = torch.bincount(labels, minlength=number)
    for empty in (counts == 0).nonzero().flatten().tolist():  # where images are equal
        moved = int((labels == counts.argmax()).nonzero()[0])
        counts[labels[moved]] -= 1
        labels[moved], counts[empty] = empty, 1
    return labels, torch.from_numpy(found.cluster_centers_)


def nearest_to(centroids: Tensor, features: Tensor) -> Tensor:
    """For each centroid the nearest row that no centroid before it took: indices (k,)."""
    distances = torch.cdist(centroids, features.double())
    chosen: list[int] = []
    for row in distances:
        row = row.clone()
        row[chosen] = torch.inf
        chosen.append(int(row.argmin()))
    return torch.tensor(chosen)


def of_class(rule: str, features: Tensor, number: int, seed: int) -> tuple[Tensor, Tensor]:
    """Members and the image of each, of one class, by a rule."""
    each = torch.arange(number)
    rule = rule.removesuffix("_features")
    if rule in ("el2n", "forgetting"):
        return features[:, 0].argsort(descending=rule == "forgetting", stable=True)[:number], each
    if rule == "herding":
        return herding(features, number), each
    if rule == "k_center":
        return k_center(features, number), each
    labels, centroids = clusters(features, number, seed)
    if rule == "kmeans":
        return nearest_to(centroids, features), each
    order = labels.argsort(stable=True)
    return order, labels[order]


def _task(task: tuple[str, int], shared: tuple[Tensor, Tensor, int, int]) -> tuple[Tensor, Tensor]:
    """A rule on one class, as a task on a cluster."""
    (rule, label), (features, targets, number, seed) = task, shared
    own = (targets == label).nonzero().flatten()
    members, image_of = of_class(rule, features[own].flatten(1), number, seed)
    return own[members], image_of


def coresets(
    rules: Sequence[str],
    features_of: Callable[[str], tuple[Callable[[], Tensor], dict[str, Any]]],
    targets: Tensor,
    per_class: int,
    seed: int,
    cluster: Cluster,
    progress: Progress,
) -> list[Coreset]:
    """Coresets of ``per_class`` images of every class by each rule, from the cache where they were chosen before.

    Args:
        features_of: from a rule to what makes that which it looks at, a row (n, ..) for each image, and to what decides
            about it, for the cache. targets: classes (n,).
    """
    num_classes = int(targets.max()) + 1

    def chosen(rule: str, features: Callable[[], Tensor]) -> Callable[[], Any]:
        def make() -> Any:
            tasks = [(rule, label) for label in range(num_classes)]
            answers = dict(cluster.map(_task, tasks, (features(), targets, per_class, seed)))
            parts = [answers[label] for label in range(num_classes)]
            members = torch.cat([members for members, _ in parts])
            image_of = torch.cat([image_of + label * per_class for label, (_, image_of) in enumerate(parts)])
            return {"members": members, "image_of": image_of}, {}

        return make

    found = []
    for rule in rules:
        features, identity = features_of(rule)
        own = {"coreset": rule, "per_class": per_class, "seed": seed, "starts": NUM_STARTS, **identity}
        tensors, _ = cached(f"choosing real images by {rule}", own, chosen(rule, features), progress.say)
        found.append(Coreset(rule, tensors["members"], tensors["image_of"]))
    return found
