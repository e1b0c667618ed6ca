"""SGD and GSAM against their formulas."""

import pytest
import torch

from distributed_dd.training.optimizers import GSAM, SGD


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


@pytest.mark.parametrize("adaptive", [True, False])
def test_gsam_is_the_published_step(adaptive):
    """Catches a second pass at w instead of w + e, and a part of the wrong gradient taken off."""
    parameters, loss = problem()
    expected = gsam_by_hand(parameters, loss, 0.1, 0.5, 0.4, adaptive)
    GSAM(learning_rate=0.1, rho=0.5, alpha=0.4, adaptive=adaptive).start(parameters)(loss)
    assert torch.allclose(torch.cat([p.detach().flatten() for p in parameters]), expected, rtol=1e-10)


def test_gsam_without_radius_is_sgd():
    (a, loss_a), (b, loss_b) = problem(), problem()
    step_a = GSAM(learning_rate=0.1, momentum=0.9, weight_decay=0.01, rho=0.0).start(a)
    step_b = SGD(learning_rate=0.1, momentum=0.9, weight_decay=0.01).start(b)
    for _ in range(4):
        step_a(loss_a)
        step_b(loss_b)
    assert all(torch.allclose(p, q, rtol=1e-9) for p, q in zip(a, b, strict=True))


def test_gsam_asks_for_the_same_batch_twice():
    parameters, loss = problem()
    calls = []

    def closure():
        calls.append(1)
        return loss()

    GSAM(learning_rate=0.1).start(parameters)(closure)
    assert len(calls) == 2
