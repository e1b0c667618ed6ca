"""SGD and GSAM against their formulas."""

import pytest
import torch

from distributed_dd.learning.optimizers import GSAM, SGD


def problem():
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(s, dtype=torch.float64)) for s in ((3, 2), (2,))]
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)

    def loss(values=None):
        weight, bias = parameters if values is None else values
        return (torch.tanh(x @ weight + bias) - y).square().mean()

    return parameters, loss


def gsam_by_hand(parameters, loss, lr, rho, alpha, adaptive):
    """The published update, line by line, on one long vector."""
    w = [p.detach().clone().requires_grad_() for p in parameters]
    g = torch.autograd.grad(loss(w), w)
    scale = [p.detach().abs() if adaptive else torch.ones_like(p) for p in w]
    n = torch.sqrt(sum(((s * q) ** 2).sum() for s, q in zip(scale, g, strict=True)))
    ascent = [rho / (n + 1e-12) * s**2 * q for s, q in zip(scale, g, strict=True)]
    moved = [(p.detach() + e).requires_grad_() for p, e in zip(w, ascent, strict=True)]
    g2 = torch.autograd.grad(loss(moved), moved)
    a, b = (torch.cat([q.flatten() for q in parts]) for parts in (g, g2))
    cosine = (a @ b) / (a.norm() * b.norm() + 1e-12)
    orthogonal = a - cosine * a.norm() * b / (b.norm() + 1e-12)
    assert abs(orthogonal @ b) < 1e-9 * a.norm() * b.norm()
    step = b - alpha * orthogonal
    return torch.cat([p.detach().flatten() for p in w]) - lr * step


def flat(parameters, loss):
    """The problem as a function of one vector: start, and gradient there."""
    sizes, shapes = [p.numel() for p in parameters], [p.shape for p in parameters]

    def gradient(theta):
        leaf = theta.detach().requires_grad_()
        parts = [v.view(s) for v, s in zip(leaf.split(sizes), shapes, strict=True)]
        return torch.autograd.grad(loss(parts), leaf)[0]

    return torch.cat([p.detach().flatten() for p in parameters]), gradient


@pytest.mark.parametrize("adaptive", [True, False])
def test_gsam_is_the_published_step(adaptive):
    """Catches a second pass at w instead of w + e, and a part of the wrong gradient taken off."""
    parameters, loss = problem()
    expected = gsam_by_hand(parameters, loss, 0.1, 0.5, 0.4, adaptive)
    theta, gradient = flat(parameters, loss)
    optimizer = GSAM(learning_rate=0.1, rho=0.5, alpha=0.4, adaptive=adaptive)
    assert torch.allclose(optimizer.update(theta, torch.zeros_like(theta), gradient)[0], expected, rtol=1e-10)


def test_sgd_is_torchs_own_to_the_bit():
    parameters, loss = problem()
    theta, gradient = flat(parameters, loss)
    velocity, ours = torch.zeros_like(theta), SGD(0.1, 0.9, 0.01)
    reference = torch.optim.SGD(parameters, 0.1, 0.9, weight_decay=0.01)
    for _ in range(4):
        theta, velocity = ours.update(theta, velocity, gradient)
        reference.zero_grad()
        loss().backward()
        reference.step()
    assert torch.equal(theta, torch.cat([p.detach().flatten() for p in parameters]))


def test_gsam_without_radius_is_sgd():
    theta, gradient = flat(*problem())
    sgd, gsam = SGD(0.1, 0.9, 0.01), GSAM(learning_rate=0.1, momentum=0.9, weight_decay=0.01, rho=0.0)
    a, b, velocity_a, velocity_b = theta, theta, torch.zeros_like(theta), torch.zeros_like(theta)
    for _ in range(4):
        a, velocity_a = sgd.update(a, velocity_a, gradient)
        b, velocity_b = gsam.update(b, velocity_b, gradient)
    assert torch.allclose(a, b, rtol=1e-9)


@pytest.mark.parametrize("optimizer", [SGD(0.1), GSAM(learning_rate=0.1)])
def test_an_update_takes_as_many_gradients_as_it_says_and_changes_nothing_in_place(optimizer):
    theta, gradient = flat(*problem())
    kept, calls = theta.clone(), []

    def counted(at):
        calls.append(1)
        return gradient(at)

    optimizer.update(theta, torch.zeros_like(theta), counted)
    assert len(calls) == optimizer.passes and torch.equal(theta, kept)
