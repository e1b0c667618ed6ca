"""What every way of differentiating through a student owes: a new one is held to it by being in the table.

What only some of them do is in tests/distillation/test_unroll.py, real processes are in tests/distributed.
"""

from dataclasses import replace

import pytest
import torch

from distributed_dd.bench.plain_loop import plain_matching_gradient
from distributed_dd.learning.augment import Siamese, _unchanged, part_of
from distributed_dd.learning.chance import generator
from distributed_dd.learning.flat import Student
from distributed_dd.learning.networks import MLP, ConvNet
from distributed_dd.outer.live_bytes import peak_live_bytes
from distributed_dd.unroll import (
    STUDENT_RULES,
    UNROLLS,
    Alone,
    At,
    Exchanged,
    Matching,
    Measured,
    Nearest,
    OnDevice,
    OnHost,
    Problem,
    Replayed,
    RowGradients,
    Spread,
    Whole,
    span,
)
from tests.contracts.small_worlds import over_ranks
from tests.unroll.test_unroll import GRADIENTS, problem

NUM_STEPS, NUM_ROWS = 5, 7

EVERY = pytest.mark.parametrize("kind", list(UNROLLS.members))
EXACT = pytest.mark.parametrize("kind", [kind for kind, cls in UNROLLS.members.items() if cls.exact])
SHARDABLE = pytest.mark.parametrize("kind", [kind for kind, cls in UNROLLS.members.items() if cls.shardable])


def unroll(kind):
    return UNROLLS.members[kind]()


def posed(given, ranks=None, parted=False, gradients=None, **changes):
    """A problem as methods pose it, or the part of it that falls to a rank; batches have 2 to 4 rows."""
    ranks = ranks or Alone()
    layout, batches = ranks.layout, given["batches"]
    parts = [layout.part(len(batch)) for batch in batches]
    images, labels = given["images"], given["labels"]
    if parted:
        first, last = span(len(images), layout.num_ranks, layout.rank)
        of_all = [layout.at(rank) for rank in range(layout.num_ranks)]
        everyone = [[batch[slice(*there.part(len(batch)))] for there in of_all] for batch in batches]
        mine = images[first:last], labels[first:last]
        rows = Exchanged(*mine, len(images), everyone, ranks, gradients or RowGradients(*mine))
    else:
        own = [batch[slice(*part)] for batch, part in zip(batches, parts, strict=True)]
        rows = Whole((images, labels), own, gradients)
    shares = [(b - a) / len(batch) for (a, b), batch in zip(parts, batches, strict=True)]
    return Problem(
        student=Student(given["network"]),
        theta_start_P=given["theta_start"],
        ends=changes.pop("ends", None)
        or At({len(batches): Matching.between(given["theta_start"], given["theta_target"])}),
        rows=rows,
        learning_rate=torch.as_tensor(given["learning_rate"], dtype=torch.float64),
        augment=[part_of(drawn, *part) for drawn, part in zip(given["augment"], parts, strict=True)],
        shares=None if layout.num_ranks == 1 else shares,
        reduce=ranks.sum_in_group,
        **changes,
    )


def same(given, expected, limit=1e-11):
    return (given - expected).norm() <= limit * expected.norm()


@EXACT
def test_exact_ones_have_the_gradient_of_an_independent_loop(kind):
    """Catches `exact` said of a surrogate: all that say so agree with plain code, and so with each other."""
    given = problem(steps=NUM_STEPS)
    found, expected = unroll(kind)(posed(given)), plain_matching_gradient(**given)
    assert found.loss.item() == pytest.approx(expected[0].item(), rel=1e-12)
    for name, value in zip(GRADIENTS, expected[1:], strict=True):
        assert same(getattr(found, name), value), name


@EXACT
def test_exact_ones_have_the_slope_of_their_own_loss(kind):
    """Catches a gradient that agrees with the other ways but belongs to another loss than is told."""
    given = problem(steps=4, smooth=True)
    found = unroll(kind)(posed(given))

    def loss(name, moved):
        return unroll(kind)(posed({**given, name: moved})).loss.item()

    for name in GRADIENTS:
        where = torch.as_tensor(given[name], dtype=torch.float64)
        direction = torch.randn(where.shape, dtype=torch.float64, generator=generator(3, name))
        h = 1e-5
        measured = (loss(name, (where + h * direction)) - loss(name, (where - h * direction))) / (2 * h)
        assert measured == pytest.approx(float((getattr(found, name) * direction).sum()), rel=1e-6), name


@pytest.mark.parametrize("kind", [kind for kind, cls in UNROLLS.members.items() if not cls.exact])
def test_those_that_are_not_exact_have_the_loss_and_differ_in_the_gradient(kind):
    """Catches `exact = False` said of a way that is: nobody would use it."""
    given = problem(steps=6)
    found, expected = unroll(kind)(posed(given)), plain_matching_gradient(**given)
    assert found.loss.item() == pytest.approx(expected[0].item(), rel=1e-12)
    assert not same(found.images, expected[1], 1e-3)


@SHARDABLE
@pytest.mark.parametrize("parted", [False, True], ids=["whole", "parted"])
@pytest.mark.parametrize("num_ranks", [2, 3])
def test_ranks_may_share_what_is_shardable(kind, num_ranks, parted):
    """Catches parts that do not add up: a share left out on one of the ways, a vector that was not summed."""
    given = problem(steps=NUM_STEPS)
    given["batches"] = [torch.randint(NUM_ROWS, (3 + t % 3,), generator=generator(0, t)) for t in range(NUM_STEPS)]
    given = {**given, "augment": [_drawn(len(batch), t) for t, batch in enumerate(given["batches"])]}
    expected = unroll(kind)(posed(given))

    def in_rank(ranks):
        asked = posed(given, ranks, parted, stored=lambda: Spread(ranks))
        return unroll(kind)(asked), span(NUM_ROWS, num_ranks, ranks.layout.rank)

    total = {name: torch.zeros_like(getattr(expected, name)) for name in GRADIENTS}
    for found, (first, last) in over_ranks(num_ranks, 1, in_rank):
        assert found.loss.item() == pytest.approx(expected.loss.item(), rel=1e-12)
        total["learning_rate"] += found.learning_rate
        for name in ("images", "labels"):
            total[name][slice(first, last) if parted else slice(None)] += getattr(found, name)
    for name, value in total.items():
        assert same(value, getattr(expected, name)), name


def _drawn(count, step):
    return Siamese().draw(generator(1, "augment", step), count)


@pytest.mark.parametrize("kind", [kind for kind, cls in UNROLLS.members.items() if not cls.shardable])
def test_what_is_not_shardable_refuses_a_shared_problem(kind):
    """Catches a part of a gradient that is taken for the whole."""
    given = problem(steps=NUM_STEPS)
    shares = [0.5] * NUM_STEPS
    divided = replace(posed(given), shares=shares)
    with pytest.raises(TypeError, match="cannot be elsewhere"):
        unroll(kind)(divided)


@SHARDABLE
def test_memory_of_what_is_shardable_does_not_grow_with_the_steps(kind):
    """Beyond the stored parameters; one graph of everything could not be shared. Counts live tensor bytes."""

    def extra(steps):
        given = problem(ConvNet(2, 8), steps=steps, n=16)
        given |= {"batches": [torch.arange(16)] * steps, "augment": [_drawn(16, 0)] * steps}
        stored = (steps + 1) * given["theta_start"].nbytes
        return peak_live_bytes(lambda: unroll(kind)(posed(given))) - stored

    assert extra(40) <= 1.05 * extra(5)


@EVERY
def test_what_does_not_count_has_no_gradient_and_what_counts_twice_has_two(kind):
    """Catches a gate that is read after the gradient was added: `weigh` is a factor of all three, not of the loss."""
    given = problem(steps=NUM_STEPS)
    once = unroll(kind)(posed(given))
    for weight in (0.0, 2.0):
        found = unroll(kind)(posed(given, weigh=lambda loss, w=weight: w))
        assert torch.equal(found.loss, once.loss)
        for name in GRADIENTS:
            assert same(getattr(found, name), weight * getattr(once, name), 1e-13), name


@EVERY
def test_gradients_of_several_problems_add_up(kind):
    """Catches an assignment where a sum is wanted: an outer step may match several segments."""
    one, two = problem(steps=NUM_STEPS), problem(steps=3, seed=1)
    two |= {name: one[name] for name in ("images", "labels")}
    expected = [getattr(unroll(kind)(posed(one)), n) + getattr(unroll(kind)(posed(two)), n) for n in GRADIENTS[:2]]
    both = RowGradients(one["images"], one["labels"])
    for given in (one, two):
        unroll(kind)(posed(given, gradients=both))
    assert same(both.images, expected[0], 1e-13) and same(both.labels, expected[1], 1e-13)


@EVERY
def test_where_parameters_wait_changes_no_bit(kind):
    """Catches an order of the way back that is not last in, first out."""
    given = problem(steps=NUM_STEPS)
    found = [unroll(kind)(posed(given, stored=stored)) for stored in (OnDevice, OnHost, lambda: Spread(Alone()))]
    for other in found[1:]:
        assert torch.equal(other.loss, found[0].loss)
        assert all(torch.equal(getattr(other, name), getattr(found[0], name)) for name in GRADIENTS)


@EVERY
def test_what_is_handed_in_stays_as_it_was_and_chance_is_not_asked(kind):
    """Catches updates in place of what a trajectory or the next segment needs, and noise."""
    given = problem(steps=NUM_STEPS)
    kept = {name: value.clone() for name, value in given.items() if isinstance(value, torch.Tensor)}
    state = torch.random.get_rng_state()
    first, second = unroll(kind)(posed(given)), unroll(kind)(posed(given))
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(getattr(first, name), getattr(second, name)) for name in GRADIENTS)
    for name, value in kept.items():
        assert torch.equal(given[name], value) and not given[name].requires_grad and given[name].grad is None


def _real_part(student, share_of, layout):
    """The loss on five real images, of which each place of the group has some."""
    images = torch.randn(5, 1, 8, 8, dtype=torch.float64, generator=generator(4, "real"))
    classes = torch.arange(5) % 3
    a, b = span(5, share_of, layout.place) if share_of > 1 else (0, 5)

    def loss(theta):
        return torch.nn.functional.cross_entropy(student.logits(theta, images[a:b]), classes[a:b])

    return Measured(loss, (b - a) / 5 if share_of > 1 else None)


@SHARDABLE
@pytest.mark.parametrize("rule", list(STUDENT_RULES.members))
@pytest.mark.parametrize("parted", [False, True], ids=["whole", "parted"])
def test_ranks_may_share_any_rule_and_a_loss_of_which_each_has_a_part(kind, rule, parted):
    """Catches a gradient of the rate counted once per rank, a slope that was not summed, a lost state."""
    if kind == "detached" and rule != "sgd":
        pytest.skip("the surrogate is for plain SGD")
    # Not a network with norms: the biases before them have no gradient but rounding, which Adam makes steps of.
    given = problem(MLP(2, 5), steps=NUM_STEPS)
    given["batches"] = [torch.randint(NUM_ROWS, (3 + t % 3,), generator=generator(0, t)) for t in range(NUM_STEPS)]
    given = {**given, "augment": [_drawn(len(batch), t) for t, batch in enumerate(given["batches"])]}
    student, follows = Student(given["network"]), STUDENT_RULES.members[rule]()
    start, target = given["theta_start"], given["theta_target"]

    def asked(ranks, **changes):
        layout = ranks.layout
        ends = {3: _real_part(student, layout.num_ranks, layout), 5: Matching.between(start, target)}
        return posed(given, ranks, ends=At(ends), rule=follows, first_back=1, **changes)

    expected = unroll(kind)(asked(Alone()))

    def in_rank(ranks):
        found = unroll(kind)(asked(ranks, parted=parted, stored=lambda: Spread(ranks)))
        return found, span(NUM_ROWS, 2, ranks.layout.rank)

    total = {name: torch.zeros_like(getattr(expected, name)) for name in GRADIENTS}
    for found, (first, last) in over_ranks(2, 1, in_rank):
        assert found.loss.item() == pytest.approx(expected.loss.item(), rel=1e-12)
        total["learning_rate"] += found.learning_rate
        for name in ("images", "labels"):
            total[name][slice(first, last) if parted else slice(None)] += getattr(found, name)
    for name, value in total.items():
        assert same(value, getattr(expected, name), 1e-10), name


def test_groups_whose_nearest_steps_differ_do_not_wait_for_each_other():
    """Catches a group that skips the steps beyond its own nearest while another asks it for rows."""
    given = problem(steps=NUM_STEPS, augmented=False)
    given["augment"] = [_unchanged] * NUM_STEPS
    thetas = [given["theta_start"]]
    for t in range(1, NUM_STEPS):
        cut = {**given, "batches": given["batches"][:t], "augment": given["augment"][:t]}
        thetas.append(Replayed()(posed(cut)).end.theta_P)
    targets = [1.001 * thetas[step] for step in (1, 4)]
    ends = [Nearest(Matching.between(given["theta_start"], target), target) for target in targets]
    expected = [Replayed()(posed(given, ends=end)) for end in ends]
    assert [end.nearest.step for end in map(_followed(thetas), ends)] == [1, 4]

    def in_rank(ranks):
        found = Replayed()(posed(given, ranks, parted=True, ends=ends[ranks.layout.group], in_step=True))
        return found.loss, found.images

    parts = over_ranks(2, 2, in_rank)
    for (loss, _), alone in zip(parts, expected, strict=True):
        assert loss.item() == pytest.approx(alone.loss.item(), rel=1e-12)
    together = torch.cat([images for _, images in parts])
    assert same(together, expected[0].images + expected[1].images, 1e-12)


def _followed(thetas):
    def follow(ends):
        follower = ends.follow()
        for step, theta in enumerate(thetas[1:], 1):
            follower.see(step, theta)
        return follower

    return follow
