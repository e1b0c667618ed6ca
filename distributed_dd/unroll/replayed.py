"""Exact gradients with one student step's graph in memory at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor
from torch.func import grad, vjp

from distributed_dd.family import setting
from distributed_dd.learning.flat import Student
from distributed_dd.unroll.problem import MatchingGradient, Problem

Gradient = Callable[[Tensor, Tensor, Tensor], Tensor]
Reverse = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class Replayed:
    """Exact; activation memory does not grow with the number of student steps. The default.

    A forward sweep stores theta_0 .. theta_N. A reverse sweep carries lambda = dL/dtheta and, per
    step, back-propagates s = <g(theta_t; x_t, y_t), lambda> once: dL/dx_t = -lr ds/dx,
    dL/dlr -= s, lambda <- lambda - lr ds/dtheta. Derivation: docs/derivations/unroll.md.
    """

    exact: ClassVar[bool] = True
    shardable: ClassVar[bool] = True
    compile: bool = setting("compile the student step (pays off after some hundred outer steps)", False)

    def __call__(self, problem: Problem) -> MatchingGradient:
        gradient, reverse = student_step(problem.student, self.compile)
        rate = problem.learning_rate.detach()
        stored, theta = problem.forward(gradient)
        scale = problem.scale()
        residual = theta - problem.theta_target_P
        loss = residual.square().sum() / scale
        weight = problem.weigh(loss)
        lambda_P = weight * (2 * residual / scale)
        out_rate = torch.zeros_like(rate)
        for step in problem.steps_back(weight):
            s, ds_theta = replay(problem, step, stored.pop(), lambda_P, reverse)
            out_rate -= s
            if step > 0:  # what theta_0 itself would change is not asked
                lambda_P = lambda_P - rate * problem.reduce(ds_theta)
        gradients = problem.rows.gradients
        return MatchingGradient(loss, gradients.images, gradients.labels, out_rate)


def replay(problem: Problem, step: int, theta_P: Tensor, lambda_P: Tensor, reverse: Reverse) -> tuple[Tensor, Tensor]:
    """Go back through one student step: adds the gradients of its rows; this rank's s and ds/dtheta."""
    images, labels = problem.rows.read(step, max(step - 1, 0))
    rate = problem.learning_rate.detach()
    raw = images.requires_grad_()
    with torch.enable_grad():
        augmented = problem.augment[step](raw)
    s, ds_theta, ds_images, ds_labels = reverse(theta_P, augmented.detach(), labels, lambda_P)
    ds_raw = ds_images
    if augmented is not raw:
        (ds_raw,) = torch.autograd.grad(augmented, raw, ds_images)
    problem.rows.add(step, -rate * problem.share(step, ds_raw), -rate * problem.share(step, ds_labels))
    return problem.share(step, s), problem.share(step, ds_theta)


@lru_cache(maxsize=4)
def student_step(student: Student, compiled: bool) -> tuple[Gradient, Reverse]:
    """The two functions that an unroll repeats: g, and <g, lambda> with its three derivatives.

    All student steps share one shape, so one compiled pair serves them all.
    """
    if compiled:
        student = Student(student.network, student.precision, channels_last=True)
        gradient: Gradient = grad(student.loss)

        def reverse(theta: Tensor, images: Tensor, labels: Tensor, lambda_P: Tensor):
            g, pull = vjp(gradient, theta, images, labels)  # type: ignore[misc]
            return (torch.dot(g, lambda_P), *pull(lambda_P))

        # A shorter last batch is a shape of its own: code for any shape would be slower for all.
        return torch.compile(gradient, dynamic=False), torch.compile(reverse, dynamic=False)

    def eager_gradient(theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        with torch.enable_grad():
            theta = theta.detach().requires_grad_()
            return torch.autograd.grad(student.loss(theta, images, labels), theta)[0]

    def eager_reverse(theta: Tensor, images: Tensor, labels: Tensor, lambda_P: Tensor):
        with torch.enable_grad():
            leaves = [leaf.detach().requires_grad_() for leaf in (theta, images, labels)]
            (g,) = torch.autograd.grad(student.loss(*leaves), leaves[0], create_graph=True)
            s = torch.dot(g, lambda_P)
            return (s.detach(), *torch.autograd.grad(s, leaves))

    return eager_gradient, eager_reverse
