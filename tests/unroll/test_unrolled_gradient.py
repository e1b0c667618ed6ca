"""End losses, student rules and windows of the unroll, against plain autograd through the whole loop, in float64."""

import pytest
import torch
from torch.func import functional_call
from torch.nn.functional import cross_entropy, softplus

import distributed_dd
from distributed_dd.errors import ConfigError
from distributed_dd.learning.chance import generator
from distributed_dd.learning.flat import Student, flatten
from distributed_dd.learning.networks import ConvNet
from distributed_dd.outer.live_bytes import peak_live_bytes
from distributed_dd.unroll import STUDENT_RULES, LargestMatching, Matching, Nearest, Replayed
from distributed_dd.unroll.student_rules import StudentAdam

NUM_STEPS, NUM_ROWS = 6, 7
RULES = pytest.mark.parametrize("rule", list(STUDENT_RULES.members))
HOW = pytest.mark.parametrize("how", ["direct", "replayed"])


def draw(*words, shape):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(0, *words))


def student_loss(theta, images, labels, weights):
    """A smooth network of two layers; examples have weights. Not a `Student`: any function will do."""
    hidden = softplus(images @ theta[:20].view(4, 5))
    logits = hidden @ theta[20:].view(5, 3)
    each = -(labels.softmax(1) * logits.log_softmax(1)).sum(1)
    return (weights * each).mean()


def real_loss(theta):
    logits = softplus(draw("real", shape=(9, 4)) @ theta[:20].view(4, 5)) @ theta[20:].view(5, 3)
    return cross_entropy(logits, torch.arange(9) % 3)


def problem(**changes):
    rng = generator(0, "batches")
    return {
        "student": student_loss,
        "theta_start": 0.5 * draw("start", shape=(35,)),
        "end": real_loss,
        "data": (draw("images", shape=(NUM_ROWS, 4)), draw("labels", shape=(NUM_ROWS, 3)), torch.ones(7).double()),
        "learning_rate": 0.2,
        "batches": [torch.randint(NUM_ROWS, (2 + t % 3,), generator=rng) for t in range(NUM_STEPS)],
        "of_start": True,
        **changes,
    }


def plain(student, theta_start, end, data, learning_rate, batches, rule="sgd", first_back=0, of_start=True, how=None):
    """Loss, gradients by data, rate and start: one graph, optimisers written out, nothing of the package."""
    leaves = [tensor.clone().requires_grad_() for tensor in data]
    rates = torch.as_tensor(learning_rate, dtype=torch.float64).clone().requires_grad_()
    start = theta = theta_start.clone().requires_grad_()
    m, v = torch.zeros_like(theta), torch.zeros_like(theta)
    loss = torch.zeros((), dtype=torch.float64)
    for t, batch in enumerate(batches, 1):
        if t == first_back + 1:
            start = theta = theta.detach().requires_grad_()
            m, v = m.detach(), v.detach()
        rate = rates if rates.ndim == 0 else rates[t - 1]
        (g,) = torch.autograd.grad(student(theta, *(leaf[batch] for leaf in leaves)), theta, create_graph=True)
        if rule == "sgd":
            theta = theta - rate * g
        elif rule == "momentum":
            m = 0.9 * m + g
            theta = theta - rate * m
        else:
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            theta = theta - rate * (m / (1 - 0.9**t)) / (torch.sqrt(v / (1 - 0.999**t)) + 1e-8)
        if callable(end) and t == len(batches):
            loss = loss + end(theta)
        elif not callable(end) and t in end:
            loss = loss + end[t](theta)
    slopes = torch.autograd.grad(loss, [*leaves, rates, start], allow_unused=True, materialize_grads=True)
    return loss.detach(), slopes


def close(value, expected, limit=1e-11):
    return value.shape == expected.shape and (value - expected).norm() <= limit * expected.norm()


def agrees(given, limit=1e-11):
    found, (loss, slopes) = distributed_dd.unrolled_gradient(**given), plain(**given)
    assert found.loss.item() == pytest.approx(loss.item(), rel=1e-12)
    for value, expected in zip((*found.tensors, found.learning_rate, found.theta_start), slopes, strict=True):
        assert expected.norm() > 0
        assert close(value, expected, limit)
    return found


@HOW
@RULES
@pytest.mark.parametrize("rates", ["one", "each"])
def test_every_rule_and_rate_has_the_gradient_of_plain_autograd(how, rule, rates):
    """Catches a state that is not carried back, a bias correction off by one step, a rate taken for another's."""
    rate = 0.1 if rates == "one" else torch.linspace(0.05, 0.2, NUM_STEPS, dtype=torch.float64)
    agrees(problem(how=how, rule=rule, learning_rate=rate), 1e-10)


@HOW
@RULES
def test_losses_at_several_steps_add_up(how, rule):
    """Catches a slope that joins one step too late, and one that overwrites what is carried."""
    agrees(problem(how=how, rule=rule, end={2: real_loss, 5: lambda theta: theta.square().sum(), 6: real_loss}), 1e-10)


@HOW
@RULES
@pytest.mark.parametrize("first_back", [1, 4])
def test_what_is_before_the_window_is_a_constant(how, rule, first_back):
    """Catches gradients of steps that were cut off, and a state of the rule that is lost at the cut."""
    agrees(problem(how=how, rule=rule, first_back=first_back), 1e-10)


@RULES
def test_the_whole_gradient_is_the_slope_of_the_loss(rule):
    """Finite differences of everything that is learned."""
    given = problem(rule=rule, learning_rate=torch.linspace(0.05, 0.2, NUM_STEPS, dtype=torch.float64))
    found = distributed_dd.unrolled_gradient(**given)
    h = 1e-6
    of_data = [("data", number) for number in range(3)]
    for name, number in [*of_data, ("learning_rate", None), ("theta_start", None)]:
        value = given[name] if number is None else given[name][number]
        direction = draw(name, number or 0, shape=value.shape)

        def loss(sign, name=name, number=number, value=value, direction=direction):
            moved = value + sign * h * direction
            if number is not None:
                moved = tuple(moved if i == number else t for i, t in enumerate(given[name]))
            return distributed_dd.unrolled_gradient(**{**given, name: moved}).loss.item()

        gradient = found.tensors[number] if number is not None else getattr(found, name)
        assert (loss(1) - loss(-1)) / (2 * h) == pytest.approx(float((gradient * direction).sum()), rel=1e-5)


@HOW
def test_the_nearest_step_is_compared_and_only_its_prefix_differentiated(how):
    """Catches the last step in place of the chosen one, and rows of later steps that get a gradient."""
    given = problem(how=how, batches=[torch.tensor([t]) for t in range(NUM_STEPS)], of_start=False)
    thetas = [given["theta_start"]]
    for t in range(NUM_STEPS):
        stop = {**given, "batches": given["batches"][: t + 1], "end": real_loss}
        thetas.append(distributed_dd.unrolled_gradient(**stop).end.theta_P)
    target = thetas[3] + 0.01 * draw("off", shape=(35,))
    matching = Matching.between(given["theta_start"], target)
    found = distributed_dd.unrolled_gradient(**{**given, "end": Nearest(matching, target)})
    loss, slopes = plain(**{**given, "end": matching.loss, "batches": given["batches"][:3], "how": how})
    assert found.loss.item() == pytest.approx(loss.item(), rel=1e-12)
    assert close(found.tensors[0], slopes[0])
    assert not found.tensors[0][3:].any() and found.tensors[0][:3].any()


def test_a_matching_loss_counts_the_parameters_of_its_mask():
    """Catches a mask that is left out of the normaliser, and a slope beside it."""
    start, target, theta = (draw(name, shape=(8,)) for name in ("start", "target", "theta"))
    counted = torch.tensor([1.0, 0, 1, 1, 0, 0, 1, 0], dtype=torch.float64)
    on = counted.bool()
    loss, slope = Matching.between(start, target, counted).slope(theta)
    assert loss.item() == pytest.approx(
        ((theta - target)[on].square().sum() / (start - target)[on].square().sum()).item(), rel=1e-14
    )
    leaf = theta.clone().requires_grad_()
    Matching.between(start, target, counted).loss(leaf).backward()
    assert torch.allclose(slope, leaf.grad, rtol=1e-14, atol=0) and not slope[~on].any()


def test_a_parameter_without_any_gradient_stays_finite_under_adam():
    """Catches the slope of a root at 0: a dead unit would make every gradient a nan."""

    def loss(theta, images):
        return (theta[0] * images).square().mean() + 0 * theta[1]

    found = distributed_dd.unrolled_gradient(
        loss,
        torch.tensor([0.7, 0.3], dtype=torch.float64),
        lambda theta: theta[0].square() + theta[1],
        (draw("x", shape=(5, 1)),),
        0.01,
        [torch.arange(5)] * 3,
        rule=StudentAdam(),
    )
    assert found.is_finite() and found.tensors[0].any()


@RULES
def test_memory_is_flat_in_the_number_of_steps(rule):
    """Counts live tensor bytes beyond what is stored of each step; with plain graphs the count grows."""
    student = Student(ConvNet(depth=2, width=8).build((1, 8, 8), 3).double())
    start = 0.3 * draw("theta", shape=(student.num_parameters,))
    data = draw("images", shape=(16, 1, 8, 8)), draw("labels", shape=(16, 3))

    def end(theta):
        return cross_entropy(student.logits(theta, data[0]), torch.arange(16) % 3)

    def extra(steps, how="replayed"):
        kept = STUDENT_RULES.members[rule].num_kept * steps * start.nbytes
        call = lambda: distributed_dd.unrolled_gradient(  # noqa: E731
            student, start, end, data, 0.01, [torch.arange(16)] * steps, rule=rule, how=how
        )
        return peak_live_bytes(call) - kept

    few, many = extra(5), extra(60)
    assert many <= 1.05 * few
    assert extra(20, "direct") > 4 * extra(5, "direct") / 2


def test_whole_numbers_are_read_and_not_learned():
    """Class indices go through; a two-tower loss of three tensors has gradients of the others."""
    network = ConvNet(depth=1, width=4).build((1, 4, 4), 3).double()
    names = [name for name, _ in network.named_parameters()]
    shapes = [p.shape for p in network.parameters()]

    def loss(theta, images, classes):
        parts = theta.split([s.numel() for s in shapes])
        values = {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        return cross_entropy(functional_call(network, values, (images,)), classes)

    images, classes = draw("images", shape=(6, 1, 4, 4)), torch.arange(6) % 3
    batches = [torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5])]
    end = lambda theta: loss(theta, images.flip(0), classes.flip(0))  # noqa: E731
    found = distributed_dd.unrolled_gradient(loss, flatten(network), end, (images, classes), 0.1, batches)
    assert found.tensors[1] is None and found.tensors[0].any()
    assert found.theta_start is None


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"end": lambda theta: torch.tensor(1.0)}, "end loss"),
        ({"end": {7: real_loss}}, "end"),
        ({"end": {}}, "end"),
        ({"end": {6: "loss"}}, "end"),
        ({"rule": "adma"}, "rule"),
        ({"how": "replay"}, "how"),
        ({"how": Replayed(compile=True)}, "how"),
        ({"first_back": 6}, "first_back"),
        ({"learning_rate": torch.ones(3)}, "learning_rate"),
        ({"learning_rate": "fast"}, "learning_rate"),
        ({"data": ()}, "data"),
        ({"data": (torch.zeros(7, 4), torch.zeros(7, 3), torch.zeros(7))}, "data[0]"),
        ({"data": (torch.zeros(7, 4).double(), torch.zeros(6, 3).double())}, "data[1]"),
        ({"batches": [torch.tensor([7])]}, "batches[0]"),
        ({"batches": []}, "batches"),
    ],
)
def test_bad_input_is_named(change, where):
    with pytest.raises(ConfigError) as caught:
        distributed_dd.unrolled_gradient(**problem(**change))
    assert caught.value.where == where


def test_a_loss_over_the_furthest_parameters_leaves_out_those_that_are_near():
    """Catches the near ones kept instead, and a normaliser over other parameters than the residual's."""
    start, target, theta = (draw(name, shape=(8,)) for name in ("start", "target", "theta"))
    far = (theta - target).abs().argsort(descending=True)[:6]
    loss, slope = LargestMatching(start, target, 0.25).slope(theta)
    expected = (theta - target)[far].square().sum() / (start - target)[far].square().sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-14)
    near = torch.ones(8, dtype=torch.bool)
    near[far] = False
    assert not slope[near].any()
    assert torch.allclose(slope[far], 2 * (theta - target)[far] / (start - target)[far].square().sum(), rtol=1e-13)
    nothing = LargestMatching(start, target, 0.1).slope(theta)[0]  # a tenth of 8 is none
    assert nothing.item() == pytest.approx(Matching.between(start, target).slope(theta)[0].item(), rel=1e-14)
