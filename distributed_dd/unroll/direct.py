"""Keep the whole graph: what the field's code does, and the reference for tests."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from distributed_dd.unroll.problem import MatchingGradient, Problem
from distributed_dd.unroll.rows import Whole


@dataclass(frozen=True)
class Direct:
    """Exact; memory grows with the number of student steps. For tests and very short unrolls."""

    exact: ClassVar[bool] = True
    shardable: ClassVar[bool] = False

    def __call__(self, problem: Problem) -> MatchingGradient:
        rows = problem.rows
        if not isinstance(rows, Whole) or problem.shares is not None:
            raise TypeError("the direct unroll keeps one graph of everything: its rows cannot be elsewhere")
        leaves = [rows.images_nCHW, rows.labels_nK, problem.learning_rate]
        images, labels, rate = (leaf.detach().clone().requires_grad_() for leaf in leaves)
        theta = problem.theta_start_P.detach().clone().requires_grad_()
        for batch, augment in zip(rows.batches, problem.augment, strict=True):
            loss = problem.student.loss(theta, augment(images[batch]), labels[batch])
            (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
            theta = theta - rate * gradient
        matching = (theta - problem.theta_target_P).square().sum() / problem.scale()
        weight = problem.weigh(matching.detach())
        of_images, of_labels, of_rate = torch.autograd.grad(matching, [images, labels, rate])
        rows.gradients.images.add_(of_images, alpha=weight)
        rows.gradients.labels.add_(of_labels, alpha=weight)
        return MatchingGradient(matching.detach(), rows.gradients.images, rows.gradients.labels, weight * of_rate)
