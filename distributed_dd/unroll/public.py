"""The public face of the unroll, for researchers with a network and two parameter vectors."""

import inspect
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from distributed_dd.errors import ConfigError
from distributed_dd.family import did_you_mean, require
from distributed_dd.learning.augment import Drawn, _unchanged
from distributed_dd.learning.flat import Student
from distributed_dd.unroll import UNROLLS, MatchingGradient, Problem, Unroll, Whole

Augment = Callable[[Tensor], Tensor] | Sequence[Drawn] | None


def matching_gradient(
    network: nn.Module | Student,
    theta_start: Tensor,
    theta_target: Tensor,
    images: Tensor,
    labels: Tensor,
    learning_rate: float | Tensor,
    batches: Sequence[Tensor],
    how: str | Unroll = "replayed",
    augment: Augment = None,
) -> MatchingGradient:
    """Loss and gradients of trajectory matching through N plain SGD steps of a student.

    Args:
        network: the student's layers; its own parameter values are not used or changed. With
            ``how=Replayed(compile=True)`` give one `Student` to all calls: it keeps the compiled code.
        theta_start, theta_target: flat parameters (P,) in ``network.parameters()`` order.
        images: (n, C, H, W). labels: (n, K) logits; softmax is taken inside the soft cross-entropy.
        learning_rate: the student's, a number or a scalar tensor.
        batches: one index tensor per student step; rows may repeat within and across steps.
        how: "replayed" (exact, flat memory), "direct" (exact, keeps the whole graph),
            "detached" (TESLA's biased surrogate), or an object with the same signature.
        augment: None, one differentiable function of a batch used at every step, or a sequence of
            N of them (such as ``Siamese().draw(rng, len(batch))``). It must not draw when applied.

    Returns:
        ``.loss`` |theta_N - target|^2 / |theta_0 - target|^2 (scalar) and its gradients
        ``.images``, ``.labels``, ``.learning_rate``, shaped like the inputs, in their dtype.

    Raises:
        ConfigError: shapes, dtypes or indices that do not fit, or a network that is no pure function.
    """
    student = network if isinstance(network, Student) else Student(network)
    student = student.to(theta_start.device, theta_start.dtype)
    known = isinstance(learning_rate, int | float | Tensor)
    require(known, "learning_rate", f"got {learning_rate!r}", "a number or a scalar tensor")
    rate = torch.as_tensor(learning_rate, dtype=theta_start.dtype, device=theta_start.device).detach()
    _check(student, theta_start, theta_target, images, labels, rate, batches)
    indices = [torch.as_tensor(b, device=images.device).long() for b in batches]
    rows, drawn = Whole(images, labels, indices), _per_step(augment, len(batches))
    problem = Problem(
        student=student,
        theta_start_P=theta_start.detach(),
        theta_target_P=theta_target.detach(),
        rows=rows,
        learning_rate=rate,
        augment=drawn,
    )
    return _unroll(how)(problem)


def _unroll(how: str | Unroll) -> Unroll:
    if not isinstance(how, str):
        return how
    if how not in UNROLLS.members:
        hint = did_you_mean(how, UNROLLS.members)
        raise ConfigError("how", f"unknown {how!r}{hint}", allowed=", ".join(UNROLLS.members))
    return UNROLLS.members[how]()


def _per_step(augment: Augment, num_steps: int) -> list[Drawn]:
    if augment is None:
        return [_unchanged] * num_steps
    if callable(augment):
        _takes_images_only(augment)
        return [augment] * num_steps
    require(len(augment) == num_steps, "augment", f"{len(augment)} draws for {num_steps} steps", "one per step")
    return list(augment)


def _takes_images_only(augment: Callable) -> None:
    try:
        inspect.signature(augment).bind(None)
    except TypeError:
        problem = "cannot be called with one batch of images"
        raise ConfigError("augment", problem, allowed="images -> images") from None
    except ValueError:
        pass  # built-in functions may have no signature


def _check(
    student: Student,
    start: Tensor,
    target: Tensor,
    images: Tensor,
    labels: Tensor,
    rate: Tensor,
    batches: Sequence[Tensor],
) -> None:
    size = (student.num_parameters,)
    for name, theta in (("theta_start", start), ("theta_target", target)):
        require(tuple(theta.shape) == size, name, f"shape {tuple(theta.shape)}", f"{size}, as the network")
    require(images.ndim >= 2, "images", f"shape {tuple(images.shape)}", "(n, C, H, W)")
    require(
        labels.ndim == 2 and len(labels) == len(images),
        "labels",
        f"shape {tuple(labels.shape)} for {len(images)} images",
        "(n, K)",
    )
    require(rate.ndim == 0, "learning_rate", f"shape {tuple(rate.shape)}", "a number or a scalar tensor")
    for name, tensor in (("theta_target", target), ("images", images), ("labels", labels)):
        require(tensor.dtype == start.dtype, name, f"is {tensor.dtype}", f"{start.dtype}, as theta_start")
    require(bool(len(batches)), "batches", "empty", "one index tensor per student step")
    try:
        with torch.no_grad():
            logits = student.logits(start.detach(), images[:1].detach())
    except RuntimeError as error:
        raise ConfigError(
            "images", f"the network cannot take shape {tuple(images.shape[1:])}: {str(error).splitlines()[0]}"
        ) from None
    require(
        logits.shape[1:] == labels.shape[1:],
        "labels",
        f"{labels.shape[1]} classes, the network gives {logits.shape[1]}",
        "(n, K), as the network",
    )
    require(not torch.equal(start, target), "theta_target", "equals theta_start: the loss is 0/0")
    for step, batch in enumerate(batches):
        rows = torch.as_tensor(batch)
        indices = not rows.is_floating_point() and rows.ndim == 1
        require(indices, f"batches[{step}]", f"is {rows.dtype} {tuple(rows.shape)}", "whole numbers (B,)")
        inside = rows.numel() and int(rows.min()) >= 0 and int(rows.max()) < len(images)
        require(bool(inside), f"batches[{step}]", "rows outside the images", f"0 .. {len(images) - 1}")
