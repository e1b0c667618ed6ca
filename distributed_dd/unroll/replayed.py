"""Exact gradients with one student step's graph in memory at a time."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.func import grad, vjp

from distributed_dd.family import require, setting
from distributed_dd.learning.flat import Student
from distributed_dd.unroll.kept import KeptSteps, Reverse, differentiable, slopes
from distributed_dd.unroll.problem import Gradient, Problem, UnrolledGradient
from distributed_dd.unroll.student_rules import Moment


@dataclass(frozen=True)
class Replayed:
    """Exact; activation memory does not grow with the number of student steps. The default.

    A forward sweep stores theta_0 .. theta_N. A reverse sweep carries lambda = dL/dtheta and, per
    step, back-propagates ``s = <g(theta_t; x_t, y_t), lambda>`` once: ``dL/dx_t = -lr ds/dx``,
    ``dL/dlr -= s``, ``lambda <- lambda - lr ds/dtheta``. Derivation: docs/derivations/unroll.md.

    With ``memory`` the last steps are not replayed: they keep what their way back needs.
    """

    exact: ClassVar[bool] = True
    shardable: ClassVar[bool] = True
    compile: bool = setting("compile the student step (pays off after some hundred outer steps)", False)
    memory: int | None = setting(
        "bytes in which the last student steps keep what their way back needs, and are not repeated (null: all are "
        "repeated)",
        None,
        at_least=0,
        added=True,
    )

    def __post_init__(self) -> None:
        require(
            self.memory is None or not self.compile,
            "memory",
            "compiled steps are repeated as a whole, which is faster than to keep them",
            "null, or compile=false",
        )

    def __call__(self, problem: Problem) -> UnrolledGradient:
        gradient, reverse = student_step(problem.student, self.compile)
        kept_steps = None
        if self.memory is not None:
            kept_steps = KeptSteps(problem.student, gradient, self.memory, problem.first_back)
            gradient = kept_steps.gradient
        student = problem.forward(gradient)
        weight = problem.weigh(student.loss)
        out_rate = torch.zeros_like(problem.learning_rate)
        carried: Moment | None = None
        for step in problem.steps_back(weight):
            carried = arrived(problem, carried, student.slopes.get(step + 1), weight)
            kept = student.stored.pop()
            if carried is not None or problem.in_step:
                back = reverse if kept_steps is None else kept_steps.reverse_of(step)
                carried = _back(problem, step, kept, carried, back, out_rate)
        start = None
        if problem.of_start:
            start = problem.share(0, carried.theta_P) if carried else torch.zeros_like(problem.theta_start_P)
        return UnrolledGradient(student.loss, problem.rows.gradients, out_rate, student.end, start)


def arrived(problem: Problem, carried: Moment | None, slope_P: Tensor | None, weight: float) -> Moment | None:
    """What is carried back, with the slope of an end loss that is taken here."""
    if slope_P is None:
        return carried
    slope_P = weight * slope_P
    if carried is not None:
        return Moment(carried.theta_P + slope_P, carried.slots)
    return Moment(slope_P, tuple(torch.zeros_like(slope_P) for _ in range(problem.rule.num_slots)))


def _back(
    problem: Problem, step: int, kept: Tensor, carried: Moment | None, reverse: Reverse, out_rate: Tensor
) -> Moment:
    """Through one student step: what is carried to the step before it; gradients of rows and rate are added."""
    rule, rate = problem.rule, problem.rate(step)
    parts = kept.split(len(problem.theta_start_P))
    before = Moment(parts[0], tuple(parts[1 : 1 + rule.num_slots]))
    if carried is None:  # other ranks wait for the rows of a step that counts for nothing here
        zero = torch.zeros_like(before.theta_P)
        carried = Moment(zero, tuple(zero for _ in before.slots))
    followed = parts[-1] if rule.num_kept > 1 else None
    back = rule.back(carried, before, followed, rate, problem.update_number(step))
    s, ds_theta = replay(problem, step, before.theta_P, back.vector_P, back.factor, reverse)
    of_rate = -s if back.rate is None else problem.share(step, back.rate)
    if out_rate.ndim:
        out_rate[step] += of_rate
    else:
        out_rate += of_rate
    if step == problem.first_back and not problem.of_start:
        return back.before  # what the first theta itself would change is not asked
    return Moment(back.before.theta_P + back.factor * problem.reduce(ds_theta), back.before.slots)


def replay(
    problem: Problem, step: int, theta_P: Tensor, vector_P: Tensor, factor: Tensor, reverse: Reverse
) -> tuple[Tensor, Tensor]:
    """Go back through one gradient: adds ``factor`` ds/d(rows) to those of its rows; this rank's s and ds/dtheta."""
    images, *others = problem.rows.read(step, max(step - 1, problem.first_back))
    raw = images.requires_grad_()
    with torch.enable_grad():
        augmented = problem.augment[step](raw)
    s, ds_theta, (ds_images, *ds_others) = reverse(theta_P, vector_P, augmented.detach(), *others)
    ds_raw = ds_images
    if augmented is not raw:
        (ds_raw,) = torch.autograd.grad(augmented, raw, ds_images)
    slopes = [None if ds is None else factor * problem.share(step, ds) for ds in (ds_raw, *ds_others)]
    problem.rows.add(step, *slopes)
    return problem.share(step, s), problem.share(step, ds_theta)


@lru_cache(maxsize=4)
def student_step(student: Any, compiled: bool) -> tuple[Gradient, Reverse]:
    """The two functions that an unroll repeats: g, and <g, v> with its derivatives.

    All student steps share one shape, so one compiled pair serves them all.
    """
    if compiled:
        student = Student(student.network, student.precision, channels_last=True)
        gradient: Gradient = grad(student.loss)

        def reverse(theta: Tensor, vector_P: Tensor, images: Tensor, labels: Tensor):
            g, pull = vjp(gradient, theta, images, labels)  # type: ignore[misc]
            ds_theta, *ds_batch = pull(vector_P)
            return torch.dot(g, vector_P), ds_theta, ds_batch

        # A shorter last batch is a shape of its own: code for any shape would be slower for all.
        return torch.compile(gradient, dynamic=False), torch.compile(reverse, dynamic=False)

    def eager_gradient(theta: Tensor, *batch: Tensor) -> Tensor:
        with torch.enable_grad():
            theta = theta.detach().requires_grad_()
            return torch.autograd.grad(student.loss(theta, *batch), theta)[0]

    def eager_reverse(theta: Tensor, vector_P: Tensor, *batch: Tensor):
        leaves, g = differentiable(student, theta, *batch)
        with torch.enable_grad():
            s = torch.dot(g, vector_P)
        return slopes(s, leaves)

    return eager_gradient, eager_reverse
