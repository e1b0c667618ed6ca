"""What a sweep varies: nothing is ever proposed that the experts do not have."""

import itertools

import pytest
import torch

from distributed_dd.errors import ConfigError
from distributed_dd.experiment import experiment_of, values_of
from distributed_dd.learning.chance import generator
from distributed_dd.methods import DIMENSIONS
from distributed_dd.nested import laid_over
from distributed_dd.search.space import Space

EPOCHS, STEP = 8, 0.5


def base(kind="expanding", **segments):
    """A configuration as plain values; 8 expert epochs, half epochs apart, M = 2."""
    window = {"kind": kind, "max_start_epoch": 4, "step": STEP, **segments}
    if kind == "expanding":
        window = {"initial_max_start_epoch": 2, "expansion_steps": 10, **window}
    sgd = {"learning_rate": 1.0}
    method = {
        "kind": "trajectory_matching",
        "image_optimizer": sgd,
        "rate_optimizer": sgd,
        "segments": window,
        "expert_epochs": 2,
    }
    values = {
        "images_per_class": 1,
        "num_outer_steps": 10,
        "data": {"kind": "digits"},
        "method": method,
        "experts": {"num_epochs": EPOCHS, "trajectory": {"kind": "full", "keep_epochs": "0-8:0.5"}},
    }
    return values_of(experiment_of(values))


def space_of(given):
    """A space of all dimensions that methods have."""
    return Space.of(given, DIMENSIONS)


def triple(settings):
    names = ("min_start_epoch", "initial_max_start_epoch", "max_start_epoch")
    return tuple(settings[f"method.segments.{name}"] for name in names)


def random_points(space, values, num):
    coordinates, rng = space.coordinates(values), generator(1, "points")
    for row in torch.rand(num, len(coordinates), generator=rng).tolist():
        yield {
            n: round(c.low + u * (c.high - c.low)) if c.integer else c.low + u * (c.high - c.low)
            for (n, c), u in zip(coordinates.items(), row, strict=True)
        }


def test_every_point_is_a_window_that_the_experts_have():
    """Also where M, on which the limit depends, is searched with it: the window is worked out last."""
    space = space_of(
        {
            "method.segments": {"kind": "matching_window"},
            "method.expert_epochs": {"kind": "integers", "low": 1, "high": 6},
            "experts.num_epochs": {"kind": "choice", "values": [8, 12]},
        }
    )
    values, seen = base(), set()
    corners = space.probes(values, 0)
    for point in itertools.chain(corners, random_points(space, values, 500)):
        settings = space.settings(point, values)
        experiment = experiment_of(laid_over(values, settings))  # checks the last target itself
        low, initial, high = triple(settings)
        m, epochs = settings["method.expert_epochs"], settings["experts.num_epochs"]
        assert 0 <= low <= initial - STEP <= high - STEP <= epochs - m
        assert experiment.method.segments.starts()[-1] + m <= epochs
        seen.add((high - STEP + m == epochs, low == 0, initial == high, m))
    assert {True, False} == {touching for touching, *_ in seen}, "the limit itself is reached, and not always"


def test_the_grid_is_every_window_once():
    """A wrong limit would lose windows, or bring some in that lie outside."""
    space = space_of({"method.segments": {"kind": "matching_window", "earliest": 1, "min_width": 1}})
    values = base()
    last = EPOCHS - 2
    bounds = [1 + STEP * k for k in range(int((last - 1) / STEP) + 2)]
    expected = {
        (low, initial, high)
        for low, initial, high in itertools.product(bounds, repeat=3)
        if low < initial <= high and high - low >= 1 and high - STEP <= last
    }
    found = [triple(space.settings(point, values)) for point in space.grid(values)]
    assert len(found) == len(set(found)) and set(found) == expected


def test_a_space_may_be_nested_and_overridden():
    """What YAML and the command line make of key.path."""
    flat = space_of({"method.student_steps": {"kind": "integers", "low": 1, "high": 9}})
    nested = space_of({"method": {"student_steps": {"kind": "integers", "low": 1, "high": 9}}})
    over = space_of(
        {
            "method.student_steps": {"kind": "integers", "low": 1, "high": 5},
            "method": {"student_steps": {"high": 9}},
        }
    )
    assert flat == nested == over


@pytest.mark.parametrize("kind", ["expanding", "window"])
def test_the_base_is_found_in_its_space_and_leads_back_to_itself(kind):
    values = base(kind, min_start_epoch=0.5)
    space = space_of(
        {
            "method.segments": {"kind": "matching_window"},
            "method.image_optimizer.learning_rate": {"kind": "log_uniform", "low": 0.1, "high": 10},
            "method.student_steps": {"kind": "integers", "low": 20, "high": 100, "step": 20},
            "method.unroll": {"kind": "choice", "values": [{"kind": "direct"}, {"kind": "replayed"}]},
        }
    )
    point = space.located(values)
    again = laid_over(values, space.settings(point, values))
    assert experiment_of(again) == experiment_of(values)


@pytest.mark.parametrize(
    "space",
    [
        {"method.student_steps": {"kind": "integers", "low": 10, "high": 70, "step": 7}},
        {"method.image_optimizer.learning_rate": {"kind": "log_uniform", "low": 2, "high": 10}},
        {"method.segments": {"kind": "matching_window", "earliest": 1}},
        {"method.segments": {"kind": "matching_window", "latest": 1}},
        {"network.kind": {"kind": "choice", "values": ["mlp", "lenet"]}},
    ],
)
def test_a_base_outside_is_said_to_be_outside(space):
    assert space_of(space).located(base()) is None


def test_two_windows_that_differ_by_spacing_only():
    space = space_of({"method.segments": {"kind": "matching_window", "spacing": 2}})
    found = {triple(space.settings(p, base())) for p in space.grid(base())}
    assert found == {
        (0, 2, 2),
        (0, 2, 4),
        (0, 4, 4),
        (0, 2, 6),
        (0, 4, 6),
        (0, 6, 6),
        (2, 4, 4),
        (2, 4, 6),
        (2, 6, 6),
        (4, 6, 6),
    }


def test_log_uniform_is_uniform_in_the_logarithm():
    space = space_of({"method.student_learning_rate": {"kind": "log_uniform", "low": 1e-3, "high": 10, "num_grid": 5}})
    tried = [space.settings(p, base())["method.student_learning_rate"] for p in space.grid(base())]
    assert tried == pytest.approx([1e-3, 1e-2, 1e-1, 1, 10])
    assert space.coordinates(base())["method.student_learning_rate"].log


@pytest.mark.parametrize(
    ("space", "where", "told"),
    [
        ({}, "space", "empty"),
        ({"seed": {"kind": "unifrom", "low": 0, "high": 1}}, "space.seed.kind", "did you mean 'uniform'"),
        ({"seed": 3}, "space.seed", "kind"),
        ({"seed": {"kind": "uniform", "low": 2, "high": 1}}, "space.seed.high", "not above low"),
        ({"seed": {"kind": "log_uniform", "low": 0, "high": 1}}, "space.seed.low", "got 0"),
        ({"seed": {"kind": "choice", "values": [1]}}, "space.seed.values", "holds 1"),
        ({"seed": {"kind": "matching_window"}}, "space.seed.kind", "method.segments"),
        ({"method.segments": {"kind": "matching_window", "latest": 7}}, "space.method.segments.latest", "at most 6"),
        (
            {"method.segments": {"kind": "matching_window", "earliest": 7}},
            "space.method.segments.earliest",
            "no window",
        ),
        ({"method.segments": {"kind": "matching_window", "spacing": 0.7}}, "space.method.segments.spacing", "multiple"),
        (
            {
                "method.segments": {"kind": "matching_window"},
                "method.segments.max_start_epoch": {"kind": "integers", "low": 1, "high": 5},
            },
            "space.method.segments",
            "another dimension",
        ),
    ],
)
def test_what_cannot_be_searched_is_told_with_its_place(space, where, told):
    with pytest.raises(ConfigError) as caught:
        found = space_of(space)
        found.coordinates(base())
        found.settings(found.probes(base(), 0)[0], base())
    assert caught.value.where == where and told in str(caught.value)
