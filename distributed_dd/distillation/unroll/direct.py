"""Keep the whole graph: what the field's code does, and the reference for tests."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from distributed_dd.distillation.unroll.problem import MatchingGradient, Problem


@dataclass(frozen=True)
class Direct:
    """Exact; memory grows with the number of student steps. For tests and very short unrolls."""

    exact: ClassVar[bool] = True

    def __call__(self, problem: Problem) -> MatchingGradient:
        leaves = [problem.images_nCHW, problem.labels_nK, problem.learning_rate]
        images, labels, rate = (leaf.detach().clone().requires_grad_() for leaf in leaves)
        theta = problem.theta_start_P.detach().clone().requires_grad_()
        for batch, augment in zip(problem.batches, problem.augment, strict=True):
            loss = problem.student.loss(theta, augment(images[batch]), labels[batch])
            (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
            theta = theta - rate * gradient
        matching = (theta - problem.theta_target_P).square().sum() / problem.scale()
        return MatchingGradient(matching.detach(), *torch.autograd.grad(matching, [images, labels, rate]))
