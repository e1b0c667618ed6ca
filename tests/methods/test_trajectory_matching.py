"""What one outer step draws: windows, batches, experts; starts and labels."""

import pytest
import torch

from distributed_dd.errors import ConfigError
from distributed_dd.family import build
from distributed_dd.learning.chance import generator
from distributed_dd.learning.update_rules import SGD
from distributed_dd.methods.trajectory_matching.expert import Experts
from distributed_dd.methods.trajectory_matching.labels import ExpertEnsemble, Hard
from distributed_dd.methods.trajectory_matching.method import TrajectoryMatching
from distributed_dd.methods.trajectory_matching.segments import Expanding, Window
from distributed_dd.methods.trajectory_matching.starts import CorrectlyPredicted


def method(**changed):
    sgd = SGD(1.0)
    settings = dict(segments=Window(4), student_steps=7, batch_size=4, student_learning_rate=0.1)
    return TrajectoryMatching(image_optimizer=sgd, rate_optimizer=sgd, label_optimizer=sgd, **{**settings, **changed})


def test_the_expanding_bound_is_the_published_one():
    """min(T+, T + int((T+ - T) it / expansion_end)), exclusive (DATM)."""
    segments = Expanding(max_start_epoch=20, initial_max_start_epoch=10, expansion_steps=1000)
    for step in (0, 1, 99, 100, 555, 999, 1000, 5000):
        assert segments.upper_bound(step) == min(20, 10 + int((20 - 10) * step / 1000))
    drawn = {segments.draw(0, generator(0, i)) for i in range(300)}
    assert drawn == set(range(10))
    assert {segments.draw(1000, generator(0, i)) for i in range(600)} == set(range(20))


def test_a_window_draws_every_epoch_in_it_and_none_outside():
    assert {Window(6, 2).draw(0, generator(0, i)) for i in range(200)} == {2, 3, 4, 5}


@pytest.mark.parametrize(
    ("cls", "bounds", "where"),
    [
        (Window, {"max_start_epoch": 2, "min_start_epoch": 2}, "max_start_epoch"),
        (Window, {"max_start_epoch": 2, "min_start_epoch": -1}, "min_start_epoch"),
        (Window, {"max_start_epoch": 2, "step": 1e15}, "max_start_epoch"),
        (Window, {"max_start_epoch": 1e6, "step": 1e-6}, "step"),
        (
            Expanding,
            {"max_start_epoch": 5, "initial_max_start_epoch": 6, "expansion_steps": 10},
            "initial_max_start_epoch",
        ),
        (Expanding, {"max_start_epoch": 1e6, "initial_max_start_epoch": 1, "expansion_steps": 9, "step": 1e-6}, "step"),
        (Expanding, {"max_start_epoch": 5, "initial_max_start_epoch": 3, "expansion_steps": 0}, "expansion_steps"),
    ],
)
def test_impossible_windows_are_refused(cls, bounds, where):
    with pytest.raises(ConfigError) as caught:
        build(cls, bounds)
    assert caught.value.where == where


def test_the_last_target_may_be_the_last_epoch_and_no_later():
    method(expert_epochs=2, experts=Experts(num_epochs=5))  # starts 0..3, targets 2..5
    with pytest.raises(ConfigError, match="at most 3"):
        method(expert_epochs=2, experts=Experts(num_epochs=4))


def test_every_expert_comes_once_per_pass_in_changing_order():
    orders = [[method().draw(p * 5 + i, 0, 5, 10).expert for i in range(5)] for p in range(4)]
    assert all(sorted(order) == list(range(5)) for order in orders)
    assert len({tuple(order) for order in orders}) > 1


def test_batches_are_passes_over_the_set_the_short_one_first():
    batches = method().draw(0, 0, 1, 10).batches  # batches of 4 from 10 images: 2, 4, 4, 2, 4, 4, 2
    assert [len(b) for b in batches] == [2, 4, 4, 2, 4, 4, 2]
    for first in (0, 3):
        assert sorted(torch.cat(batches[first : first + 3]).tolist()) == list(range(10))
    assert [len(b) for b in method(batch_size=99).draw(0, 0, 1, 10).batches] == [10] * 7


def test_a_step_draws_the_same_whatever_was_drawn_before():
    """Resuming needs no random state."""
    first = [method().draw(step, 3, 2, 10) for step in range(6)]
    again = method().draw(5, 3, 2, 10)
    assert again.expert == first[5].expert and again.start_epoch == first[5].start_epoch
    assert all(torch.equal(a, b) for a, b in zip(again.batches, first[5].batches, strict=True))
    images = torch.randn(len(again.batches[0]), 1, 8, 8)
    assert torch.equal(again.augment[0](images), first[5].augment[0](images))
    other = method().draw(5, 4, 2, 10)
    assert not all(torch.equal(a, b) for a, b in zip(again.batches, other.batches, strict=True))


def test_the_gate_lets_pass_what_is_at_or_below_it():
    assert method(gate=1.0).accepts(1.0) and not method(gate=1.0).accepts(1.001)
    assert method(gate=None).accepts(1e9)


def test_label_logits_are_the_mean_over_the_experts_that_are_right():
    """Catches an average over all experts, and 0/0 where none is right."""
    targets = torch.tensor([0, 1, 1])
    first = torch.tensor([[3.0, 1.0], [2.0, 5.0], [4.0, 1.0]])
    second = torch.tensor([[1.0, 2.0], [0.0, 1.0], [2.0, 0.0]])
    labels = ExpertEnsemble().start(targets, 2, [first, second])
    assert torch.allclose(labels, torch.tensor([[3.0, 1.0], [1.0, 3.0], [3.0, 0.5]]))


def test_hard_labels_are_one_hot_after_softmax():
    labels = Hard().start(torch.tensor([1, 0]), 3, [])
    assert torch.allclose(labels.softmax(1), torch.tensor([[0.0, 1, 0], [1, 0, 0]]), rtol=0, atol=1e-40)


def test_starting_images_are_right_for_an_expert_and_the_next_one_fills_up():
    targets = torch.tensor([0] * 6 + [1] * 6)
    # Expert 0 is right on images 0, 1 and 6..11; expert 1 also on image 2.
    answers = {0: [0, 0, 1, 1, 1, 1] + [1] * 6, 1: [1, 1, 0, 1, 1, 1] + [1] * 6}

    def predictions(expert):
        return torch.tensor(answers[expert])

    given = (torch.zeros(12, 1), targets)
    chosen = CorrectlyPredicted().choose(*given, 2, predictions, 2, generator(0, "s"))
    assert sorted(chosen[:2].tolist()) == [0, 1] and (chosen[2:] >= 6).all()
    chosen = CorrectlyPredicted().choose(*given, 3, predictions, 2, generator(0, "s"))
    assert sorted(chosen[:3].tolist()) == [0, 1, 2]
    with pytest.raises(ConfigError, match="only 3 images of class 0"):
        CorrectlyPredicted().choose(*given, 4, predictions, 2, generator(0, "s"))
