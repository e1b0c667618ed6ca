"""Clipping by the running norm: the rule in plain numbers, whole over pieces, gone on with from what is kept."""

import pytest
import torch

from distributed_dd.errors import ConfigError
from distributed_dd.family import build_member, plain
from distributed_dd.learning.clipping import CLIPS, Clipped, NoClip, RunningNorm
from distributed_dd.learning.update_rules import LAMB, RUNNING_NORM, SGD, Adam, UpdateRules, is_by_row, slot_key

SCALES = (1.0, 1.5, 40.0, 3.0, 0.0, 0.02, 500.0)
"""Of the gradients of successive updates: some far above those before, one nothing."""
RULES = pytest.mark.parametrize("rule", [SGD(0.7, 0.9), Adam(0.1), LAMB(0.1)], ids=["sgd", "adam", "lamb"])


def gradient(step):
    rng = torch.Generator().manual_seed(step)
    drawn = torch.randn(6, 2, 3, generator=rng, dtype=torch.float64)
    return SCALES[step] * drawn / drawn.norm()


def start():
    return torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(99), dtype=torch.float64)


def optimizer_of(rule, *pieces, **more):
    return UpdateRules([{"params": list(pieces), "rule": rule, "name": "images", **more}])


def stepped(optimizer, pieces, steps):
    for step in steps:
        for piece, part in zip(pieces, gradient(step).split([len(piece) for piece in pieces]), strict=True):
            piece.grad = part.clone()
        optimizer.step()


def published(rule, decay, multiple):
    """The rule of the reference code, written out: the mean takes the newest norm in, then bounds it."""
    x, mean, bounds = torch.nn.Parameter(start()), None, []
    optimizer = optimizer_of(rule, x)
    for step in range(len(SCALES)):
        x.grad = gradient(step)
        norm = (x.grad**2).sum().sqrt().item()
        mean = norm if mean is None else mean - (1 - decay) * (mean - norm)
        bounds.append(mean * multiple)
        torch.nn.utils.clip_grad_norm_(x, max_norm=mean * multiple)
        optimizer.step()
    return x.detach(), bounds


@RULES
@pytest.mark.parametrize(("decay", "multiple"), [(0.9, 2.0), (0.5, 0.9)])
def test_it_is_the_published_rule(rule, decay, multiple):
    """Catches a mean of norms that are cut already, one that lags a step, and a scale that is turned over."""
    x = torch.nn.Parameter(start())
    optimizer = optimizer_of(Clipped(rule, RunningNorm(decay, multiple)), x)
    stepped(optimizer, [x], range(len(SCALES)))
    expected, bounds = published(rule, decay, multiple)
    cut = [norm > bound for norm, bound in zip(SCALES, bounds, strict=True)]
    assert any(cut) and (multiple < 1 or not all(cut))
    assert torch.allclose(x, expected, rtol=1e-4, atol=1e-5)  # torch adds 1e-6 to the norm
    assert optimizer.state[x][RUNNING_NORM].item() == pytest.approx(bounds[-1] / multiple, rel=1e-12)


@RULES
def test_a_bound_that_is_never_reached_changes_no_bit(rule):
    clipped, free = (torch.nn.Parameter(start()) for _ in range(2))
    stepped(optimizer_of(Clipped(rule, RunningNorm(0.9, 1e9)), clipped), [clipped], range(4))
    stepped(optimizer_of(rule, free), [free], range(4))
    assert torch.equal(clipped, free)


@RULES
def test_the_norm_is_that_of_all_pieces_wherever_they_are(rule):
    """Catches the norm of a block, and of what one process has."""
    clipped = Clipped(rule, RunningNorm(0.5, 0.9))
    whole = torch.nn.Parameter(start())
    stepped(optimizer_of(clipped, whole), [whole], range(4))
    pieces = [torch.nn.Parameter(piece.clone()) for piece in start().split([1, 3, 2])]
    stepped(optimizer_of(clipped, *pieces), pieces, range(4))
    assert torch.allclose(torch.cat(pieces), whole, rtol=1e-12)
    piece = torch.nn.Parameter(start()[:2])
    others = iter([gradient(step)[2:].square().sum() for step in range(4)])
    sgd = optimizer_of(Clipped(SGD(1.0, 0.0), clipped.clip), piece, total=lambda part: part + next(others))
    for step in range(4):
        piece.grad = gradient(step)[:2]
        sgd.step()
    full = torch.nn.Parameter(start())
    stepped(optimizer_of(Clipped(SGD(1.0, 0.0), clipped.clip), full), [full], range(4))
    assert torch.allclose(piece, full[:2], rtol=1e-12)


@RULES
def test_it_goes_on_from_what_is_kept(rule):
    """Catches a mean that begins anew."""
    clipped = Clipped(rule, RunningNorm(0.5, 0.9))
    whole, first = (torch.nn.Parameter(start()) for _ in range(2))
    stepped(optimizer_of(clipped, whole), [whole], range(6))
    halfway = optimizer_of(clipped, first)
    stepped(halfway, [first], range(3))
    then = torch.nn.Parameter(first.detach().clone())
    resumed, kept = optimizer_of(clipped, then), [*clipped.slots.values(), *clipped.numbers.values()]
    assert set(kept) == set(halfway.state[first])
    resumed.state[then] = {key: halfway.state[first][key].clone() for key in kept}
    stepped(resumed, [then], range(3, 6))
    assert torch.equal(then, whole)


def test_a_piece_without_a_gradient_is_refused():
    """Left out, it would silently change the norm of the whole."""
    pieces = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    pieces[0].grad = torch.ones(2)
    with pytest.raises(ValueError, match="has none"):
        optimizer_of(Clipped(SGD(0.1), RunningNorm()), *pieces).step()


def test_a_checkpoint_keeps_one_number_and_no_row():
    assert slot_key(RUNNING_NORM, "images") == "running_norm.images" and not is_by_row("running_norm.images")


def test_the_published_bound_is_the_default_and_none_is_none():
    clip = build_member(CLIPS, "running_norm")
    assert plain(clip) == {"decay": 0.9, "multiple": 2.0}
    assert NoClip().applied_to(SGD(0.1)) == SGD(0.1)
    with pytest.raises(ConfigError) as caught:
        build_member(CLIPS, {"kind": "running_norm", "decay": 1.0}, "method.clip")
    assert caught.value.where == "method.clip.decay"
