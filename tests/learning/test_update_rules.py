"""Update rules: torch's own to the bit, LAMB by its formula, and the names of what they keep."""

import pytest
import torch

from distributed_dd.errors import ConfigError
from distributed_dd.family import build_member, plain
from distributed_dd.learning.update_rules import LAMB, SGD, UPDATE_RULES, Adam, UpdateRules, is_by_row, slot_key
from distributed_dd.methods import METHODS

NUM_STEPS = 5
TRAJECTORIES = {
    "kind": "trajectory_matching",
    "image_optimizer": {"learning_rate": 0},
    "rate_optimizer": {"learning_rate": 0},
    "segments": {"kind": "window", "max_start_epoch": 3},
}
SHAPES = {"images": (4, 1, 3, 3), "learning_rate": ()}


def gradient(name, step, shape=None, dtype=torch.float32):
    """Far from 1, and of another scale in every step."""
    rng = torch.Generator().manual_seed(len(name) + 100 * step)
    return 10 ** (step - 1) * torch.randn(shape or SHAPES[name], generator=rng, dtype=dtype)


def start(name, dtype=torch.float32):
    rng = torch.Generator().manual_seed(len(name))
    return torch.nn.Parameter(torch.randn(SHAPES[name], generator=rng, dtype=dtype))


def group(name, rule, *pieces):
    return {"params": list(pieces), "rule": rule, "name": name}


def through(optimizer, parameters, steps):
    for step in steps:
        for name, parameter in parameters.items():
            parameter.grad = gradient(name, step)
        optimizer.step()


def same_state(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_sgd_is_torchs_to_the_bit():
    """Catches a factor, a momentum or a learning rate that went to the wrong group."""
    rules = {"images": SGD(0.7, 0.5), "learning_rate": SGD(1e-3, 0.0)}
    ours, theirs = ({name: start(name) for name in rules} for _ in range(2))
    optimizer = UpdateRules(group(name, rules[name], parameter) for name, parameter in ours.items())
    groups = [{"params": [theirs[n]], "lr": r.learning_rate, "momentum": r.momentum} for n, r in rules.items()]
    torchs = torch.optim.SGD(groups, lr=1.0)
    through(optimizer, ours, range(NUM_STEPS))
    through(torchs, theirs, range(NUM_STEPS))
    for name in rules:
        assert torch.equal(ours[name], theirs[name])
    same_state(optimizer.state[ours["images"]], torchs.state[theirs["images"]])


def test_adam_is_torchs_to_the_bit():
    """Catches lost counts (bias correction) and exchanged betas."""
    rule = Adam(0.01, 0.5, 0.9)
    ours, theirs = start("images"), start("images")
    optimizer = UpdateRules([group("images", rule, ours)])
    torchs = torch.optim.Adam([theirs], 0.01, (0.5, 0.9))
    through(optimizer, {"images": ours}, range(NUM_STEPS))
    through(torchs, {"images": theirs}, range(NUM_STEPS))
    assert torch.equal(ours, theirs)
    same_state(optimizer.state[ours], torchs.state[theirs])


@pytest.mark.parametrize("rule", [SGD(0.7, 0.9), Adam(), LAMB(0.1)], ids=["sgd", "adam", "lamb"])
def test_an_update_goes_on_from_slots(rule):
    """Catches state that torch's optimisers keep beside what a checkpoint saves."""
    whole = start("images")
    through(UpdateRules([group("images", rule, whole)]), {"images": whole}, range(NUM_STEPS))
    first = start("images")
    halfway = UpdateRules([group("images", rule, first)])
    through(halfway, {"images": first}, range(2))
    then = torch.nn.Parameter(first.detach().clone())
    resumed = UpdateRules([group("images", rule, then)])
    saved = [*rule.slots.values(), *rule.numbers.values()]
    assert set(saved) == set(halfway.state[first])
    resumed.state[then] = {key: halfway.state[first][key].clone() for key in saved}
    through(resumed, {"images": then}, range(2, NUM_STEPS))
    assert torch.equal(then, whole)


def lamb_in_float64(rule, x, gradients):
    """The formula, written down from the start each time."""
    x = x.detach().double()
    for number in range(1, len(gradients) + 1):
        mean, square = torch.zeros_like(x), torch.zeros_like(x)
        for past, g in enumerate(gradients[:number]):
            age = number - 1 - past
            mean += (1 - rule.beta1) * rule.beta1**age * g.double()
            square += (1 - rule.beta2) * rule.beta2**age * g.double() ** 2
        mean /= 1 - rule.beta1**number
        square /= 1 - rule.beta2**number
        d = mean / (square**0.5 + rule.epsilon)
        norms = (x**2).sum() ** 0.5, (d**2).sum() ** 0.5
        x = x - rule.learning_rate * norms[0] / norms[1] * d
    return x


@pytest.mark.parametrize("rule", [LAMB(), LAMB(0.3, 0.5, 0.9), LAMB(0.1, epsilon=0.1)])
def test_lamb_is_its_formula(rule):
    """Catches a ratio turned over, an epsilon under the root, and means that keep their start at 0."""
    gradients = [gradient("images", step) for step in range(NUM_STEPS)]
    single, double = start("images"), start("images", torch.float64)
    double.data.copy_(single)
    expected = lamb_in_float64(rule, single, gradients)
    for x, largest in ((single, 1e-5), (double, 1e-13)):
        optimizer = UpdateRules([group("images", rule, x)])
        for given in gradients:
            x.grad = given.to(x.dtype)
            optimizer.step()
        assert (x - expected).abs().max() <= largest * expected.abs().max()


def pieces_of(whole, step):
    """A tensor and its gradient cut in two."""
    pieces = [torch.nn.Parameter(piece.clone()) for piece in whole.detach().split([1, 3])]
    for piece, given in zip(pieces, gradient("images", step).split([1, 3]), strict=True):
        piece.grad = given
    return pieces


def test_lambs_norm_is_that_of_all_pieces():
    """Catches a scale for each block of a class instead of one for the tensor."""
    whole = start("images")
    pieces = pieces_of(whole, 0)
    through(UpdateRules([group("images", LAMB(0.1), whole)]), {"images": whole}, [0])
    UpdateRules([group("images", LAMB(0.1), *pieces)]).step()
    assert torch.allclose(torch.cat(pieces), whole, rtol=1e-6, atol=0)


def test_lambs_norm_is_that_of_all_processes():
    """Catches a scale for each rank, and norms added up instead of their squares."""
    whole, told = start("images"), []
    for piece in pieces_of(whole, 0):  # what each of two processes tells the other
        UpdateRules([group("images", LAMB(0.1), piece)], lambda part: told.append(part) or part).step()
    assert all(part.dtype == torch.float64 and part.shape == (2,) for part in told) and len(told) == 2
    pieces = pieces_of(whole, 0)
    for piece in pieces:
        UpdateRules([group("images", LAMB(0.1), piece)], lambda part: sum(told)).step()
    through(UpdateRules([group("images", LAMB(0.1), whole)]), {"images": whole}, [0])
    assert torch.allclose(torch.cat(pieces), whole, rtol=1e-6, atol=0)


def test_a_group_sums_by_its_own_total():
    """Catches a flat tensor, whole on every rank, whose norm is multiplied by their number."""
    sums = []
    x, y = start("images"), start("learning_rate")
    x.grad, y.grad = gradient("images", 0), gradient("learning_rate", 0)
    groups = [group("images", LAMB(), x), group("learning_rate", LAMB(), y) | {"total": lambda part: part}]
    UpdateRules(groups, lambda part: sums.append(part) or part).step()
    assert len(sums) == 1


@pytest.mark.parametrize("nothing", ["tensor", "gradient"])
def test_a_norm_of_zero_has_scale_one(nothing):
    """Catches a division by zero, and a tensor of zeros that never moves."""
    x = torch.nn.Parameter(torch.zeros(3) if nothing == "tensor" else torch.ones(3))
    before = x.detach().clone()
    x.grad = torch.zeros(3) if nothing == "gradient" else torch.tensor([2.0, -2.0, 2.0])
    UpdateRules([group("x", LAMB(0.5), x)]).step()
    moved = torch.zeros(3) if nothing == "gradient" else torch.tensor([-0.5, 0.5, -0.5])
    assert torch.allclose(x - before, moved, atol=1e-5)


def test_lamb_refuses_a_piece_without_a_gradient():
    """Left out, it would silently change the norm of the whole."""
    pieces = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    pieces[0].grad = torch.ones(2)
    with pytest.raises(ValueError, match="no gradient"):
        UpdateRules([group("x", LAMB(), *pieces)]).step()


@pytest.mark.parametrize("rule", [SGD(0.4, 0.9), Adam(0.4), LAMB(0.4)], ids=["sgd", "adam", "lamb"])
def test_a_factor_multiplies_the_learning_rate_of_the_next_steps(rule):
    """Catches a factor that reaches one rule alone, or that stays in what is kept."""
    moved = {}
    for factor in (1.0, 0.25):
        x = start("images")
        optimizer = UpdateRules([group("images", rule, x)])
        optimizer.factor = factor
        before = x.detach().clone()
        through(optimizer, {"images": x}, [2])
        moved[factor] = x.detach() - before, optimizer.state[x]
    assert torch.allclose(moved[0.25][0], moved[1.0][0] / 4, rtol=1e-4, atol=1e-6)
    same_state(moved[0.25][1], moved[1.0][1])


def test_an_empty_group_is_passed_over():
    """ZeRO 3 empties all groups but one for every update."""
    x = start("images")
    x.grad = gradient("images", 0)
    optimizer = UpdateRules([group("other", LAMB(), torch.nn.Parameter(torch.ones(1))), group("x", SGD(1.0), x)])
    optimizer.param_groups[0]["params"] = []
    optimizer.step()
    assert torch.equal(x, start("images") - x.grad)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"kind": "sgd", "learning_rate": 1}, SGD(1.0, 0.5)),
        ({"kind": "adam", "beta1": 0, "beta2": 0.9}, Adam(1e-3, 0.0, 0.9)),
        ("lamb", LAMB(3e-4, 0.9, 0.999, 1e-6)),
    ],
)
def test_a_rule_comes_from_its_configuration_and_goes_back(given, expected):
    """Run names hang on the fields: catches one renamed, added, or with another default."""
    assert build_member(UPDATE_RULES, given) == expected
    assert (
        list(plain(expected))
        == {
            SGD: ["learning_rate", "momentum"],
            Adam: ["learning_rate", "beta1", "beta2"],
            LAMB: ["learning_rate", "beta1", "beta2", "epsilon"],
        }[type(expected)]
    )


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"kind": "sgd"}, "learning_rate"),
        ({"kind": "adam", "learning_rate": 0}, "learning_rate"),
        ({"kind": "adam", "beta1": 1}, "beta1"),
        ({"kind": "lamb", "beta2": -0.1}, "beta2"),
        ({"kind": "lamb", "epsilon": 0}, "epsilon"),
    ],
)
def test_a_rule_that_cannot_work_is_refused_with_its_place(given, where):
    with pytest.raises(ConfigError) as told:
        build_member(UPDATE_RULES, given, "method.image_optimizer")
    assert told.value.where == f"method.image_optimizer.{where}"


@pytest.mark.parametrize(
    ("method", "refused"),
    [
        ({"kind": "distribution_matching", "image_optimizer": {"kind": "sgd", "learning_rate": 0}}, True),
        ({"kind": "gradient_matching", "image_optimizer": {"kind": "sgd", "learning_rate": 0.0}}, True),
        ({**TRAJECTORIES, "labels": "hard"}, True),
        ({**TRAJECTORIES, "label_optimizer": {"learning_rate": 0}}, True),
        ({**TRAJECTORIES, "label_optimizer": {"learning_rate": 1}}, False),  # labels alone are learned
        ({**TRAJECTORIES, "labels": "hard", "image_optimizer": {"learning_rate": 1}}, False),  # a fixed rate
    ],
)
def test_a_set_of_which_nothing_would_be_learned_is_refused(method, refused):
    if not refused:
        assert build_member(METHODS, method, "method")
        return
    with pytest.raises(ConfigError, match="nothing would be learned") as caught:
        build_member(METHODS, method, "method")
    assert caught.value.where == "method.image_optimizer.learning_rate" and caught.value.allowed == "above 0"


def test_slots_are_called_as_in_files_that_are_there():
    """Old checkpoints must be found: catches a key of another form."""
    assert slot_key("momentum", "images") == "momentum.images"
    assert slot_key("updates", "learning_rate") == "updates.learning_rate"
    assert [slot_key(s, "generator.theta") for s in ("mean", "square", "updates")] == [
        "generator.mean",
        "generator.square",
        "generator.updates",
    ]
    by_row = ["images", "labels", "classes", "momentum.images", "mean.labels", "average.images"]
    assert all(map(is_by_row, by_row))
    flat = ["learning_rate", "momentum.learning_rate", "generator.theta", "updates.images", "average"]
    assert not any(map(is_by_row, flat)), "a count of updates is one number, also of a row tensor"
