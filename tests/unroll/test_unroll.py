"""The unroll against finite differences, an independent loop and itself, in float64."""

import itertools

import pytest
import torch
from torch import nn

import distributed_dd
from distributed_dd.bench.plain_loop import plain_matching_gradient
from distributed_dd.errors import ConfigError
from distributed_dd.learning.augment import OPERATIONS, Siamese
from distributed_dd.learning.chance import generator
from distributed_dd.learning.networks import MLP, ConvNet
from distributed_dd.outer.live_bytes import peak_live_bytes

GRADIENTS = ("images", "labels", "learning_rate")


def problem(network_config=None, steps=4, augmented=True, smooth=False, seed=0, n=7):
    torch.manual_seed(seed)
    network = (network_config or ConvNet(depth=2, width=4)).build((1, 8, 8), 3).double()
    if smooth:
        for module in network.modules():
            for name, child in module.named_children():
                if isinstance(child, nn.ReLU):
                    setattr(module, name, nn.Softplus())
    count = sum(p.numel() for p in network.parameters())
    start = 0.3 * torch.randn(count, dtype=torch.float64)
    target = start + 0.1 * torch.randn(count, dtype=torch.float64)
    images = torch.randn(n, 1, 8, 8, dtype=torch.float64)
    labels = torch.randn(n, 3, dtype=torch.float64)
    rng = generator(seed, "batches")
    # Rows repeat within and across steps, and batches differ in size.
    batches = [torch.randint(n, (2 + t % 3,), generator=rng) for t in range(steps)]
    augment = None
    if augmented:
        names = itertools.cycle(OPERATIONS)
        augment = [Siamese(operations=(next(names),)).draw(rng, len(b)) for b in batches]
    return dict(
        network=network,
        theta_start=start,
        theta_target=target,
        images=images,
        labels=labels,
        learning_rate=0.3,
        batches=batches,
        augment=augment,
    )


@pytest.mark.parametrize("network", [ConvNet(2, 4), MLP(3, 5)], ids=["convnet", "mlp"])
@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("how", ["direct", "replayed"])
def test_exact_ways_equal_an_independent_loop(network, augmented, how):
    """Catches a wrong sign, a lost factor (I - lr H), rows scattered to the wrong image."""
    given = problem(network, steps=7, augmented=augmented)
    ours = distributed_dd.matching_gradient(**given, how=how)
    reference = plain_matching_gradient(**given)
    assert torch.allclose(ours.loss, reference[0], rtol=1e-12, atol=0)
    for name, expected in zip(GRADIENTS, reference[1:], strict=True):
        value = getattr(ours, name)
        assert value.dtype == torch.float64 and value.shape == expected.shape
        assert (value - expected).norm() <= 1e-11 * expected.norm()


@pytest.mark.parametrize("how", ["direct", "replayed"])
def test_every_gradient_equals_finite_differences(how):
    """Catches a gradient that agrees between our own ways but belongs to another loss."""
    given = problem(steps=4, smooth=True)
    result = distributed_dd.matching_gradient(**given, how=how)

    def loss_at(**changed):
        return float(distributed_dd.matching_gradient(**{**given, **changed}, how="direct").loss)

    h = 1e-5
    for name in ("images", "labels"):
        direction = torch.randn(given[name].shape, dtype=torch.float64, generator=generator(3, name))
        up, down = (
            loss_at(**{name: given[name] + h * direction}),
            loss_at(**{name: given[name] - h * direction}),
        )
        slope = float((getattr(result, name) * direction).sum())
        assert (up - down) / (2 * h) == pytest.approx(slope, rel=1e-6)
    up, down = loss_at(learning_rate=0.3 + h), loss_at(learning_rate=0.3 - h)
    assert (up - down) / (2 * h) == pytest.approx(float(result.learning_rate), rel=1e-6)


def test_detached_equals_replayed_at_one_step_and_not_at_more():
    one, more = problem(steps=1), problem(steps=6)
    for name in GRADIENTS:
        a, b = (getattr(distributed_dd.matching_gradient(**one, how=how), name) for how in ("detached", "replayed"))
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-18)
    a, b = (distributed_dd.matching_gradient(**more, how=how) for how in ("detached", "replayed"))
    assert torch.equal(a.loss, b.loss)
    assert (a.images - b.images).norm() > 1e-3 * b.images.norm()


def test_replayed_memory_beyond_the_stored_parameters_does_not_grow_with_steps():
    """Counts live tensor bytes; `direct` on the same problem shows that the count sees graphs."""

    def extra(how, steps):
        given = problem(ConvNet(2, 8), steps=steps, n=16, augmented=False)
        given["batches"] = [torch.arange(16)] * steps
        stored = (steps + 1) * given["theta_start"].nbytes
        return peak_live_bytes(lambda: distributed_dd.matching_gradient(**given, how=how)) - stored

    few, many = extra("replayed", 5), extra("replayed", 40)
    assert many <= 1.05 * few
    assert extra("direct", 40) > 4 * extra("direct", 5)


def test_compiled_equals_eager_on_a_smooth_network():
    """In float32 two correct paths flip ReLU masks, so the comparison uses softplus."""
    from distributed_dd.unroll import Replayed

    given = problem(MLP(2, 6), steps=3, smooth=True, augmented=False)
    given["batches"] = [torch.tensor([0, 1, 2])] * 3
    try:
        compiled = distributed_dd.matching_gradient(**given, how=Replayed(compile=True))
    except Exception as error:
        if "compiler" in str(error).lower():
            pytest.skip(f"no C++ compiler for torch.compile: {error}")
        raise
    eager = distributed_dd.matching_gradient(**given, how="replayed")
    assert (compiled.images - eager.images).norm() <= 1e-9 * eager.images.norm()


def test_one_student_for_many_calls_is_prepared_once():
    """Otherwise every call of a researcher's loop would compile anew."""
    from distributed_dd.unroll.replayed import student_step

    given = problem()
    expected = distributed_dd.matching_gradient(**given)
    given["network"] = distributed_dd.Student(given["network"])
    before = student_step.cache_info().misses
    for _ in range(3):
        assert torch.equal(distributed_dd.matching_gradient(**given).images, expected.images)
    assert student_step.cache_info().misses == before + 1


def test_inputs_are_left_as_they_were():
    given = problem()
    kept = {k: v.clone() for k, v in given.items() if isinstance(v, torch.Tensor)}
    parameters = [p.clone() for p in given["network"].parameters()]
    state = torch.random.get_rng_state()
    distributed_dd.matching_gradient(**given)
    assert all(torch.equal(given[k], v) and not given[k].requires_grad for k, v in kept.items())
    assert all(torch.equal(a, b) for a, b in zip(parameters, given["network"].parameters(), strict=True))
    assert torch.equal(state, torch.random.get_rng_state())


def test_one_function_for_all_steps_is_the_same_as_a_list_of_it():
    given = problem(augmented=False)
    shift = lambda x: x * 1.5 + 0.1  # noqa: E731
    a = distributed_dd.matching_gradient(**{**given, "augment": shift})
    b = distributed_dd.matching_gradient(**{**given, "augment": [shift] * 4})
    assert torch.equal(a.images, b.images) and not torch.equal(
        a.images, distributed_dd.matching_gradient(**given).images
    )


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"how": "replay"}, "how"),
        ({"theta_start": torch.zeros(3, dtype=torch.float64)}, "theta_start"),
        ({"images": torch.zeros(7, 1, 8, 8)}, "images"),
        ({"labels": torch.zeros(2, 3, dtype=torch.float64)}, "labels"),
        ({"batches": [torch.tensor([7])], "augment": None}, "batches[0]"),
        ({"batches": [], "augment": None}, "batches"),
        ({"batches": [torch.rand(4)], "augment": None}, "batches[0]"),
        ({"labels": torch.zeros(7, 9, dtype=torch.float64)}, "labels"),
        ({"images": torch.zeros(7, 1, 12, 12, dtype=torch.float64)}, "images"),
        ({"learning_rate": "a"}, "learning_rate"),
        ({"augment": [lambda x: x]}, "augment"),
    ],
)
def test_bad_input_is_named(change, where):
    with pytest.raises(ConfigError) as caught:
        distributed_dd.matching_gradient(**{**problem(), **change})
    assert caught.value.where == where


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(1), nn.Dropout(0.5)], ids=["batchnorm", "dropout"])
def test_networks_that_are_no_pure_function_are_refused(layer):
    network = nn.Sequential(layer, nn.Flatten(), nn.Linear(64, 3)).double()
    given = problem()
    with pytest.raises(ConfigError, match=r"running statistics|new noise"):
        distributed_dd.matching_gradient(**{**given, "network": network})
