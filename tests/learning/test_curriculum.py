"""PAD's curriculum against its description, and EL2N against its formula."""

import pytest
import torch

from distributed_dd.errors import ConfigError
from distributed_dd.family import build
from distributed_dd.learning.curriculum import EasyToHard, Everything, easy_to_hard, el2n

RANKED = torch.randperm(200, generator=torch.Generator().manual_seed(0))


def test_the_published_schedule():
    """75 % at first, all from epoch 20 on, without the easiest 10 % from 40 and 20 % from 60."""
    curriculum = EasyToHard()
    seen = {epoch: curriculum.chosen(epoch, RANKED) for epoch in (0, 10, 20, 39, 40, 60, 99)}
    assert {epoch: len(index) for epoch, index in seen.items()} == {
        0: 150,
        10: 175,
        20: 200,
        39: 200,
        40: 180,
        60: 160,
        99: 160,
    }
    assert torch.equal(seen[0], RANKED[:150])  # the easiest
    assert torch.equal(seen[60], RANKED[40:])  # the easiest are gone, not the hardest


def test_everything_is_everything():
    assert torch.equal(Everything().chosen(3, RANKED), RANKED) and Everything().num_scorers == 0


def test_el2n_is_the_length_of_the_error():
    logits = torch.tensor([[0.0, 0.0], [100.0, 0.0], [100.0, 0.0]])
    assert el2n(logits, torch.tensor([0, 0, 1])).tolist() == pytest.approx([0.5**0.5, 0.0, 2**0.5], abs=1e-6)


def test_images_are_ranked_by_their_mean_score():
    assert easy_to_hard([torch.tensor([0.0, 3.0, 1.0]), torch.tensor([2.0, 0.0, 0.0])]).tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    "settings",
    [
        {"initial_fraction": 0.0},
        {"full_epoch": 0},
        {"removal_epochs": (40,)},
        {"removal_epochs": (60, 40)},
        {"removal_epochs": (10, 60)},
        {"removal_fractions": (0.2, 0.1)},
        {"removal_fractions": (0.1, 1.0)},
    ],
)
def test_an_impossible_schedule_is_refused(settings):
    with pytest.raises(ConfigError):
        build(EasyToHard, settings)
