"""Keep the whole graph: what the field's code does, and the reference for tests."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from distributed_dd.unroll.problem import Problem, UnrolledGradient
from distributed_dd.unroll.rows import Whole
from distributed_dd.unroll.student_rules import Moment


@dataclass(frozen=True)
class Direct:
    """Exact; memory grows with the number of student steps. For tests and very short unrolls."""

    exact: ClassVar[bool] = True
    shardable: ClassVar[bool] = False

    def __call__(self, problem: Problem) -> UnrolledGradient:
        rows = problem.rows
        if not isinstance(rows, Whole) or problem.shares is not None:
            raise TypeError("the direct unroll keeps one graph of everything: its rows cannot be elsewhere")
        rates = problem.learning_rate.detach().clone().requires_grad_()
        tensors = [tensor.detach().clone() for tensor in rows.tensors]
        learned = [tensor.requires_grad_() for tensor in tensors if tensor.is_floating_point()]
        moment, follower = problem.start(), problem.ends.follow()
        start = moment.theta_P.clone()
        moment = Moment(start, moment.slots)
        for step, (batch, augment) in enumerate(zip(rows.batches, problem.augment, strict=True)):
            if step == problem.first_back:
                # Where what was before is a constant, the graph begins.
                start = moment.theta_P.detach().clone().requires_grad_()
                moment = Moment(start, tuple(slot.detach() for slot in moment.slots))
            with torch.set_grad_enabled(True):
                theta_P = moment.theta_P if moment.theta_P.requires_grad else moment.theta_P.detach().requires_grad_()
                images, *others = (tensor[batch] for tensor in tensors)
                loss = problem.student.loss(theta_P, augment(images), *others)
                (gradient,) = torch.autograd.grad(loss, theta_P, create_graph=step >= problem.first_back)
            rate = rates if rates.ndim == 0 else rates[step]
            with torch.set_grad_enabled(step >= problem.first_back):
                moment = problem.rule.update(Moment(theta_P, moment.slots), gradient, rate, problem.update_number(step))
            follower.see(step + 1, moment.theta_P)
        losses = [look.end.loss(look.theta_P) for look in follower.looks()]
        loss = torch.stack(losses).sum() if len(losses) > 1 else losses[0]
        weight = problem.weigh(loss.detach())
        asked = [*learned, rates, *([start] if problem.of_start else [])]
        slopes = list(torch.autograd.grad(loss, asked, allow_unused=True, materialize_grads=True))
        of_start = weight * slopes.pop() if problem.of_start else None
        of_rates = slopes.pop()
        for gradients, slope in zip((g for g in rows.gradients.tensors if g is not None), slopes, strict=True):
            gradients.add_(slope, alpha=weight)
        end = Moment(moment.theta_P.detach(), tuple(slot.detach() for slot in moment.slots))
        return UnrolledGradient(loss.detach(), rows.gradients, weight * of_rates, end, of_start)
