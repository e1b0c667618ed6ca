"""What is kept of a trajectory, and what is read back."""

import pytest
import torch

from distributed_dd.errors import ConfigError, IntegrityError
from distributed_dd.trajectories.epochs import format_epochs, parse_epochs
from distributed_dd.trajectories.forms import Convex, Full
from distributed_dd.trajectories.store import TrajectoryStore

SIZES = [2, 3]


def rows(num_epochs=4):
    """Layer one covers a quarter of its way in each epoch; layer two all of it in the first."""
    first = torch.arange(num_epochs + 1.0)[:, None].expand(-1, 2)
    second = torch.tensor([0.0] + [8.0] * num_epochs)[:, None].expand(-1, 3)
    return torch.cat([first, second], 1)


def kept(tmp_path, form, epochs, values):
    store = TrajectoryStore.below(tmp_path, {"form": str(form)})
    store.write(0, form.tensors(epochs, values, SIZES), epochs, {})
    return store.open(0)


@pytest.mark.parametrize(
    "text, epochs",
    [
        ("0-3", (0, 1, 2, 3)),
        ("5", (5,)),
        ("0-1:0.5,4", (0, 0.5, 1, 4)),
        ("3, 0-1", (0, 1, 3)),
        ("0-1:0.3", (0, 0.3, 0.6, 0.9)),
    ],
)
def test_epochs_as_people_write_them(text, epochs):
    assert parse_epochs(text) == epochs
    assert parse_epochs(format_epochs(epochs)) == epochs


def test_runs_are_written_as_ranges():
    assert format_epochs([0, 1, 2, 5, 7, 7.5, 8, 9]) == "0-2,5,7,7.5,8-9"


def test_epochs_may_be_given_as_numbers_too():
    assert Full((1.0, 2.5)).recorded(10, (0,)) == (0, 1, 2.5, 10) and Full(5.0).recorded(10, ()) == (5, 10)


@pytest.mark.parametrize("text", ["", "a", "3-1", "0-4:0", "-1", "1;2", (), (-1.0,)])
def test_what_is_no_list_of_epochs_is_refused(text):
    with pytest.raises(ConfigError, match="keep_epochs"):
        Full(text)


def test_a_window_is_kept_with_the_last_epoch_and_nothing_else(tmp_path):
    form = Full("window")
    epochs = form.recorded(10, (0, 0.5, 2))
    assert epochs == (0, 0.5, 2, 10)
    trajectory = kept(tmp_path, form, epochs, torch.arange(4.0)[:, None].expand(4, 5))
    assert trajectory.checkpoint(0.5).tolist() == [1.0] * 5 and trajectory.checkpoint(-1)[0] == 3
    with pytest.raises(IntegrityError, match="holds no epoch 1"):
        trajectory.checkpoint(1)
    assert Full("0-4,7").recorded(10, ()) == (0, 1, 2, 3, 4, 7, 10)
    assert form.bytes_per_expert(10, (0, 0.5, 2), 5) == 4 * 5 * 4


def test_an_epoch_beyond_the_last_is_refused():
    with pytest.raises(ConfigError, match="epoch 12 is beyond"):
        Full("0-12").recorded(10, ())
    with pytest.raises(ConfigError, match="epoch 12 is beyond"):
        Convex((12.0,)).recorded(10, ())


@pytest.mark.parametrize("precision, error", [("float32", 0), ("float16", 2**-11), ("bf16", 2**-8)])
def test_every_number_format_is_read_as_float32_within_its_rounding(tmp_path, precision, error):
    form, values = Full(precision=precision), torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    got = kept(tmp_path, form, (0, 1, 2), values).checkpoint(2)
    assert got.dtype == torch.float32
    assert ((got - values[2]).abs() <= error * values[2].abs()).all()


def test_a_number_too_large_for_the_format_is_refused():
    with pytest.raises(ConfigError, match="too large for float16"):
        Full(precision="float16").tensors((0,), torch.full((1, 5), 1e6), SIZES)


def test_a_line_has_the_waypoints_and_each_layer_goes_as_the_expert_went(tmp_path):
    """Catches one clock for all layers: the second layer was there after the first epoch."""
    trajectory = kept(tmp_path, Convex(), (0, 1, 2, 3, 4), rows())
    assert torch.equal(trajectory.checkpoint(0), rows()[0])
    assert torch.equal(trajectory.checkpoint(-1), rows()[4])
    assert trajectory.checkpoint(1).tolist() == [1, 1, 8, 8, 8]
    assert trajectory.checkpoint(0.5).tolist() == [0.5, 0.5, 4, 4, 4]
    assert trajectory.has(3.999) and not trajectory.has(4.5)


def test_a_detour_is_straightened_and_its_length_counts(tmp_path):
    """The first layer walks out and back to the side; between waypoints its place stays on the line."""
    values = torch.zeros(5, 5)
    values[:, 0] = torch.tensor([0.0, 1, 2, 3, 4])
    values[:, 1] = torch.tensor([0.0, 9, 0, 0, 0])
    trajectory = kept(tmp_path, Convex(), (0, 1, 2, 3, 4), values)
    middle = trajectory.checkpoint(2)
    steps = values[:, :2].diff(dim=0).norm(dim=1)
    assert middle[1] == 0 and middle[0] == pytest.approx(float(4 * steps[:2].sum() / steps.sum()))


def test_inner_waypoints_are_means_of_their_neighbours_and_the_ends_are_exact(tmp_path):
    values = rows()
    values[2, 0] = 5.0
    smooth = kept(tmp_path, Convex((2.0,), smoothing=1), (0, 1, 2, 3, 4), values)
    assert smooth.checkpoint(2)[0] == pytest.approx((1 + 5 + 3) / 3)
    exact = kept(tmp_path, Convex((2.0,), smoothing=0), (0, 1, 2, 3, 4), values)
    assert exact.checkpoint(2)[0] == 5 and smooth.checkpoint(4)[0] == 4


def test_a_layer_that_does_not_move_goes_by_time(tmp_path):
    trajectory = kept(tmp_path, Convex(), (0, 1, 2, 3, 4), torch.ones(5, 5))
    assert trajectory.checkpoint(1.3).tolist() == [1.0] * 5


def test_lines_take_a_fraction_of_the_disk(tmp_path):
    full, convex = Full().bytes_per_expert(50, (), 1000), Convex((6.0, 25.0)).bytes_per_expert(50, (), 1000)
    assert full / convex == 51 / 4
