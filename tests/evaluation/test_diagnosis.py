"""Pairs of loss and accuracy, and what is read from them; the sets that a loss is asked of."""

import json
import math

import pytest
import torch

from distributed_dd.data import Images
from distributed_dd.evaluation.coresets import Coreset
from distributed_dd.evaluation.diagnosed_sets import in_the_form, outliers, sets_to_ask
from distributed_dd.evaluation.diagnosis import Pair, as_values, best_of, duration, pair_of, read, table
from distributed_dd.evaluation.kept_losses import KeptLosses
from distributed_dd.learning.classes import hard_logits
from distributed_dd.learning.set_forms.formation import Formation
from distributed_dd.outer.look import draws_of


def pairs_of(losses, accuracies, **more):
    return [
        Pair(name=f"{number}", how="", loss=loss, accuracies=(accuracy,), **more)
        for number, (loss, accuracy) in enumerate(zip(losses, accuracies, strict=True))
    ]


def ranks(values):
    """Average ranks, from 1 on: what Spearman's correlation is Pearson's of."""
    return torch.tensor(
        [sum(other < value for other in values) + (1 + sum(other == value for other in values)) / 2 for value in values]
    )


def test_a_loss_that_falls_as_accuracy_rises_knows_it():
    reading = read(pairs_of([5.0, 4.0, 3.0, 2.0, 1.5, 1.0], [0.1, 0.2, 0.3, 0.35, 0.4, 0.9]))
    assert reading.verdict == "knows" and reading.rho == pytest.approx(-1)
    assert reading.line() == f"the loss knows accuracy: rho = -1.00 (p {2 / 720:.2g}) over 6 sets"


def test_a_loss_that_rises_with_accuracy_is_warned_of():
    """To take the size of the correlation for knowledge would praise a loss that leads away."""
    reading = read(pairs_of(range(8), [0.1 * number for number in range(8)]))
    assert reading.verdict == "contrary" and reading.line().startswith("warning: the loss is lower where accuracy is")


def test_a_loss_of_no_order_does_not_tell_good_sets_from_bad_ones():
    reading = read(pairs_of([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.3, 0.6, 0.1, 0.5, 0.2, 0.4]))
    assert reading.verdict == "unsure" and abs(reading.rho) < 0.5
    assert reading.line().startswith("warning: the loss does not tell good sets from bad ones: rho = ")


def test_ties_take_average_ranks():
    losses, accuracies = [1.0, 1.0, 2.0, 3.0, 3.0, 3.0, 4.0], [0.5, 0.4, 0.4, 0.4, 0.3, 0.2, 0.5]
    wanted = torch.corrcoef(torch.stack([ranks(losses), ranks(accuracies)]))[0, 1].item()
    assert read(pairs_of(losses, accuracies)).rho == pytest.approx(wanted, abs=1e-6)


def test_only_the_order_counts():
    """One bad set with a huge loss would make Pearson's correlation whatever it likes."""
    accuracies = [0.9, 0.8, 0.7, 0.6, 0.2]
    assert read(pairs_of([1, 2, 3, 4, 1e9], accuracies)).rho == pytest.approx(-1)
    assert read(pairs_of([1, 2, 3, 4, math.inf], accuracies)).rho == pytest.approx(-1)


def test_no_order_of_five_is_less_likely_than_one_in_sixty():
    """The approximation gives p = 0 there."""
    assert read(pairs_of([1, 2, 3, 4, 5], [0.5, 0.4, 0.3, 0.2, 0.1])).p == pytest.approx(1 / 60)


@pytest.mark.parametrize("num", [0, 1, 4])
def test_fewer_than_five_sets_give_no_verdict(num):
    reading = read(pairs_of(range(num), range(num)))
    assert (reading.verdict, reading.rho) == ("too_few", None) and "5 are needed" in reading.line()


@pytest.mark.parametrize("losses", [[2.0] * 6, [2.0, 2.00001, 2.00002, 2.0, 2.00001, 2.0], [math.inf] * 6, [0.0] * 6])
def test_a_constant_loss_is_blind(losses):
    """A correlation of what rounding left would be noise, however it comes out."""
    reading = read(pairs_of(losses, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]))
    assert (reading.verdict, reading.rho) == ("blind", None)
    assert reading.line().startswith("warning: the objective is blind: the loss is constant")


def test_equal_accuracies_give_no_verdict():
    assert read(pairs_of(range(6), [0.1] * 6)).verdict == "alike"


def test_a_loss_that_is_not_finite_survives_json_and_is_last_in_the_table():
    pairs = pairs_of([math.inf, 1.0], [0.1, 0.9])
    again = [pair_of(values) for values in json.loads(json.dumps([as_values(pair) for pair in pairs], allow_nan=False))]
    assert again == pairs
    assert [line[2] for line in table(pairs, "loss")[1]] == ["1", "not finite"]
    json.dumps(read(pairs_of([math.inf, 1, 2, 3, 4], [0.1] * 5)).as_json(), allow_nan=False)


def test_the_best_coreset_is_no_random_set():
    random, chosen = pairs_of([1], [0.9], random=True), pairs_of([1, 2], [0.5, 0.6], coreset=True)
    assert best_of([*random, *chosen]) == chosen[1] and best_of(random) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.21, "3.2 s"), (75, "75 s"), (150, "2.5 min"), (5400, "90 min"), (4e4, "11 h"), (3e5, "3.5 days")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_draws_are_spread_over_the_distillation_and_begin_with_a_turn():
    assert draws_of(100, 1, 4, 3) == [range(n, n + 1) for n in (12, 37, 62, 87)]
    assert draws_of(100, 10, 2, 3) == [range(20, 23), range(70, 73)]
    assert draws_of(3, 1, 8, 1) == [range(0, 1), range(1, 2), range(2, 3)]
    assert draws_of(4, 10, 8, 20) == [range(0, 4)]


@pytest.fixture
def train():
    rng = torch.Generator().manual_seed(0)
    return Images(torch.randn(30, 1, 2, 2, generator=rng), torch.arange(3).repeat_interleave(10))


def asked_of(train, per_class, num_sets, coresets=()):
    labels = hard_logits(train.targets, 3)
    index = torch.cat([train.of_class(number)[:per_class] for number in range(3)])
    start = {"images": train.images[index], "labels": labels[index], "classes": train.targets[index]}
    return sets_to_ask(num_sets, per_class, {**start, "learning_rate": torch.tensor(0.3)}, train, labels, coresets, 1)


def test_sets_differ_have_the_starts_shape_and_what_else_it_learns(train):
    asked = asked_of(train, 2, 12)
    assert len(asked) == 12 and sum(one.random for one in asked) == 9
    for one in asked:
        assert one.tensors["images"].shape == (6, 1, 2, 2) and one.tensors["learning_rate"] == 0.3
        assert one.tensors["classes"].tolist() == [0, 0, 1, 1, 2, 2]
        assert torch.equal(one.tensors["labels"].argmax(1), one.tensors["classes"])
    assert len({one.tensors["images"].sum().item() for one in asked}) == 12


def test_more_sets_do_not_change_those_that_were_asked(train):
    """What is known of them counts again."""
    few, many = asked_of(train, 2, 7), asked_of(train, 2, 11)
    for one, other in zip(few, many, strict=False):
        assert one.name == other.name and torch.equal(one.tensors["images"], other.tensors["images"])


def test_equal_coresets_are_asked_once_and_means_have_mean_labels(train):
    members = torch.tensor([0, 10, 20])
    twice = [Coreset(rule, members, torch.arange(3)) for rule in ("kmeans", "k_center")]
    means = Coreset("kmeans_centroids", torch.arange(30), torch.arange(3).repeat_interleave(10))
    asked = {one.name: one for one in asked_of(train, 1, 10, [*twice, means])}
    assert asked["starting set = k-means = k-centre"].coreset  # the start is the first image of each class too
    centroids = asked["k-means centroids"].tensors
    assert torch.allclose(centroids["images"], train.images.reshape(3, 10, 1, 2, 2).mean(1))
    assert centroids["classes"].tolist() == [0, 1, 2]


def test_sets_are_asked_about_as_the_form_gives_them_back_and_the_start_as_it_is(train):
    """Tiles of one pixel: a picture comes back as its mean. The start would be changed twice."""
    asked = asked_of(train, 4, 7)
    codec = Formation(2).fitted((1, 2, 2), lambda: train.images)
    first, *others = in_the_form(asked, asked[0].tensors, codec)
    assert first is asked[0]
    for before, after in zip(asked[1:], others, strict=True):
        means = before.tensors["images"].mean((2, 3), keepdim=True).expand(-1, -1, 2, 2)
        assert torch.allclose(after.tensors["images"], means) and after.name == before.name
        assert torch.equal(after.tensors["labels"], before.tensors["labels"])


def test_a_data_set_with_few_images_has_fewer_random_sets():
    """Two images a class, of which both are taken: there is one random set, and it is the start."""
    small = Images(torch.randn(6, 1, 2, 2), torch.arange(3).repeat_interleave(2))
    assert [one.name for one in asked_of(small, 2, 9)] == ["starting set = outliers", "noisy images"]


def test_outliers_are_the_farthest_from_the_mean():
    images = torch.tensor([0.0, 1.0, 2.0, 9.0, 5.0, 5.0, 4.0]).reshape(7, 1, 1, 1)
    assert outliers(Images(images, torch.tensor([0, 0, 0, 0, 1, 1, 1])), 1).tolist() == [3, 6]


def test_kept_losses_are_those_of_their_owner_and_a_line_cut_short_is_none(tmp_path):
    path = tmp_path / "losses.jsonl"
    kept = KeptLosses(path, "mine")
    kept.keep({"set": "a"}, [[1.0, math.nan]])
    kept.keep({"set": "b"}, [[2.0]])
    path.write_text(path.read_text()[:-20])
    again = KeptLosses(path, "mine")
    assert again.get({"set": "a"}) == [[1.0, math.inf]] == kept.get({"set": "a"}) and again.get({"set": "b"}) is None
    assert KeptLosses(path, "another's").get({"set": "a"}) is None
