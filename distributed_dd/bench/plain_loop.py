"""Trajectory matching as the field writes it: module parameters, one graph through all steps."""

import torch
from torch.func import functional_call


def plain_matching_gradient(network, theta_start, theta_target, images, labels, learning_rate, batches, augment=None):
    """(loss, image, label and learning-rate gradients), nothing shared with the package."""
    images, labels = images.clone().requires_grad_(), labels.clone().requires_grad_()
    rate = torch.as_tensor(learning_rate, dtype=theta_start.dtype).clone().requires_grad_()
    names = [n for n, _ in network.named_parameters()]
    shapes = [p.shape for p in network.parameters()]

    def cut(flat):
        pieces, at = [], 0
        for shape in shapes:
            pieces.append(flat[at : at + shape.numel()].reshape(shape))
            at += shape.numel()
        return pieces

    weights = [w.clone().requires_grad_() for w in cut(theta_start)]
    for step, batch in enumerate(batches):
        x = images[batch] if augment is None else augment[step](images[batch])
        logits = functional_call(network, dict(zip(names, weights, strict=True)), (x,))
        probabilities = torch.exp(labels[batch]) / torch.exp(labels[batch]).sum(1, keepdim=True)
        loss = -(probabilities * (logits - torch.logsumexp(logits, 1, keepdim=True))).sum() / len(batch)
        grads = torch.autograd.grad(loss, weights, create_graph=True)
        weights = [w - rate * g for w, g in zip(weights, grads, strict=True)]
    top = sum(((w - t) ** 2).sum() for w, t in zip(weights, cut(theta_target), strict=True))
    bottom = sum(((s - t) ** 2).sum() for s, t in zip(cut(theta_start), cut(theta_target), strict=True))
    matching = top / bottom
    return (matching.detach(), *torch.autograd.grad(matching, [images, labels, rate]))
