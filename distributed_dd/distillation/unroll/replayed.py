"""Exact gradients with one student step's graph in memory at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor
from torch.func import grad, vjp

from distributed_dd.distillation.student import Student
from distributed_dd.distillation.unroll.problem import MatchingGradient, Problem
from distributed_dd.family import setting

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
    compile: bool = setting("compile the student step (pays off after some hundred outer steps)", False)

    def __call__(self, problem: Problem) -> MatchingGradient:
        gradient, reverse = student_step(problem.student, self.compile)
        rate, target = problem.learning_rate.detach(), problem.theta_target_P
        thetas = [problem.theta_start_P.detach()]
        with torch.no_grad():
            for step in range(len(problem.batches)):
                images, labels = problem.rows(step)
                thetas.append(thetas[-1] - rate * gradient(thetas[-1], images, labels))
        scale = problem.scale()
        residual = thetas.pop() - target
        matching = residual.square().sum() / scale
        lambda_P = 2 * residual / scale
        out_images = torch.zeros_like(problem.images_nCHW)
        out_labels = torch.zeros_like(problem.labels_nK)
        out_rate = torch.zeros_like(rate)
        for step in reversed(range(len(problem.batches))):
            batch, augment = problem.batches[step], problem.augment[step]
            raw = problem.images_nCHW[batch].detach().requires_grad_()
            with torch.enable_grad():
                augmented = augment(raw)
            s, ds_theta, ds_images, ds_labels = reverse(
                thetas.pop(), augmented.detach(), problem.labels_nK[batch].detach(), lambda_P
            )
            if augmented is raw:
                ds_raw = ds_images
            else:
                (ds_raw,) = torch.autograd.grad(augmented, raw, ds_images)
            out_images.index_add_(0, batch, -rate * ds_raw)
            out_labels.index_add_(0, batch, -rate * ds_labels)
            out_rate -= s
            lambda_P = lambda_P - rate * ds_theta
        return MatchingGradient(matching, out_images, out_labels, out_rate)


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
