"""Chosen real images: each rule against its definition, and what a report says of them."""

import pytest
import torch

from distributed_dd.backends.local.cluster import InProcess
from distributed_dd.backends.local.console import ConsoleProgress
from distributed_dd.errors import ConfigError
from distributed_dd.evaluation import coresets as chosen
from distributed_dd.evaluation.coresets import Coreset, clusters, coresets, herding, k_center, nearest_to
from distributed_dd.evaluation.referee import against_controls, difference, paired_differences, points
from distributed_dd.evaluation.settings import RULES, Evaluation
from distributed_dd.family import build
from distributed_dd.learning.chance import generator

NUM_CLASSES, PER_CLASS, SHAPE = 3, 12, (1, 3, 3)


@pytest.fixture
def images():
    """Images (n, C, H, W) of three classes, and their classes, mixed."""
    images = torch.randn(NUM_CLASSES * PER_CLASS, *SHAPE, generator=generator(0, "images"))
    targets = torch.arange(NUM_CLASSES).repeat(PER_CLASS)
    return images + targets.reshape(-1, 1, 1, 1), targets


@pytest.fixture
def features():
    return torch.randn(20, 5, generator=generator(1, "features"))


def test_herding_keeps_the_mean_of_every_beginning_as_near_as_one_more_image_can(features):
    order, mean = herding(features, 20).tolist(), features.double().mean(0)
    assert sorted(order) == list(range(20))
    for count in range(1, 21):
        before = order[: count - 1]
        off = {
            index: (features[[*before, index]].double().mean(0) - mean).norm().item()
            for index in range(20)
            if index not in before
        }
        assert off[order[count - 1]] == pytest.approx(min(off.values()), rel=1e-9)


def test_a_k_centre_is_the_image_farthest_from_all_before_it(features):
    order, wide = k_center(features, 20).tolist(), features.double()
    assert sorted(order) == list(range(20))
    assert order[0] == int((wide - wide.mean(0)).norm(dim=1).argmin())
    for count in range(1, 20):
        nearest = torch.cdist(wide, wide[order[:count]]).min(1).values
        assert nearest[order[count]] == pytest.approx(nearest.max().item())


def test_clusters_are_as_many_as_asked_and_centroids_their_means(features):
    labels, centroids = clusters(features, 6, seed=0)
    assert labels.unique().tolist() == list(range(6))
    for number in range(6):
        assert torch.allclose(centroids[number], features[labels == number].double().mean(0), atol=1e-6)
    picks = nearest_to(centroids, features)
    assert len(picks.unique()) == 6 and (labels[picks] == torch.arange(6)).all()


def test_equal_images_make_no_empty_cluster_and_are_not_chosen_twice():
    equal = torch.ones(9, 4)
    labels, centroids = clusters(equal, 5, seed=0)
    assert labels.unique().tolist() == list(range(5))
    assert len(nearest_to(centroids, equal).unique()) == 5


def of(rules, images, per_class, seed=0, cluster=None):
    pixels, targets = images

    def features_of(rule):
        return lambda: pixels, {"data": "small"}

    return coresets(rules, features_of, targets, per_class, seed, cluster or InProcess(), ConsoleProgress())


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("per_class", [1, 4, PER_CLASS])
def test_every_rule_gives_images_of_every_class_in_order(images, rule, per_class):
    (coreset,) = of([rule], images, per_class)
    labels = coreset.mean_of(torch.nn.functional.one_hot(images[1], NUM_CLASSES).float())
    assert coreset.mean_of(images[0]).shape == (NUM_CLASSES * per_class, *SHAPE)
    assert labels.argmax(1).tolist() == torch.arange(NUM_CLASSES).repeat_interleave(per_class).tolist()
    assert labels.max(1).values.eq(1).all()
    if not coreset.is_synthetic:
        assert torch.equal(coreset.mean_of(images[0]), images[0][coreset.members])


def test_one_centroid_per_class_is_the_class_mean(images):
    (coreset,) = of(["kmeans_centroids"], images, 1)
    means = torch.stack([images[0][images[1] == label].mean(0) for label in range(NUM_CLASSES)])
    assert coreset.is_synthetic and torch.allclose(coreset.mean_of(images[0]), means, atol=1e-6)


def test_a_choice_is_made_once_per_machine_and_again_for_another_seed_or_size(images, monkeypatch):
    first = of(RULES, images, 2)
    monkeypatch.setattr(chosen, "of_class", lambda *_: pytest.fail("chosen again"))
    again = of(RULES, images, 2)
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.members, other.members) and torch.equal(one.image_of, other.image_of)
    for seed, per_class in ((1, 2), (0, 3)):
        with pytest.raises(pytest.fail.Exception):
            of(["kmeans"], images, per_class, seed)


def test_a_mean_over_members_is_of_each_image_apart():
    coreset = Coreset("kmeans_centroids", torch.tensor([0, 2, 1]), torch.tensor([0, 0, 1]))
    values = torch.tensor([[1.0, 10.0], [5.0, 50.0], [3.0, 30.0]])
    assert coreset.mean_of(values).tolist() == [[2.0, 20.0], [5.0, 50.0]]


def test_an_unknown_control_is_refused_before_anything_is_made():
    with pytest.raises(ConfigError, match="herding, kmeans"):
        build(Evaluation, {"controls": ["k_means"]}, "evaluate")
    assert build(Evaluation, {"controls": []}, "evaluate").controls == ()


def row(name, *accuracies):
    return {
        "name": name,
        "accuracy_mean": sum(accuracies) / len(accuracies),
        "accuracies": accuracies,
        "num_networks": 3,
    }


def test_a_difference_is_taken_network_by_network():
    by, spread = difference(row("a", 0.9, 0.8, 0.7), row("b", 0.8, 0.7, 0.6))
    assert by == pytest.approx(0.1) and spread == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (
            [row("kmeans", 0.5, 0.6, 0.7), row("random_real", 0.1, 0.1, 0.1)],
            "Above the best control, k-means, by +30.0 ± 0.0",
        ),
        ([row("kmeans", 0.9, 0.8, 0.9), row("random_real", 0.1, 0.1, 0.1)], "Not above k-means; beside the best"),
        ([row("herding_soft_labels", 0.9, 0.8, 1.0)], "Not above herding with the same soft labels;"),
        ([row("full_data", 0.9, 0.8, 0.9)], None),
    ],
)
def test_a_report_says_what_the_set_is_above_and_what_not(rows, line):
    said = against_controls([row("distilled", 0.8, 0.9, 1.0), *rows])
    assert (said == []) if line is None else (len(said) == 1 and line in said[0]), said


def test_the_set_is_compared_with_each_control_over_the_same_seeds():
    rows = [row("distilled", 0.8, 0.9, 1.0), row("kmeans", 0.7, 0.9, 0.8), row("full_data", 1.0, 1.0, 1.0)]
    paired = paired_differences(rows)
    assert set(paired) == {"kmeans"}, "the full data are no control of the same size"
    assert paired["kmeans"] == pytest.approx({"mean": 0.1, "std": 0.1, "num_pairs": 3})
    assert points(0.1, 0.1, 3) == "+10.0 ± 10.0" and points(-0.1, 0.0, 1) == "-10.0"


def test_reports_of_older_versions_have_no_such_line():
    old = {"name": "distilled", "accuracy_mean": 0.9, "num_networks": 5}
    assert against_controls([old, {**old, "name": "random_real"}]) == []
