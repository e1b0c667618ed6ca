"""The public face of the unroll, for researchers with a loss, a parameter vector and data to differentiate by."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distributed_dd.errors import ConfigError
from distributed_dd.family import did_you_mean, require
from distributed_dd.learning.augment import Drawn, _unchanged
from distributed_dd.learning.flat import Student
from distributed_dd.unroll import (
    STUDENT_RULES,
    UNROLLS,
    At,
    EndLoss,
    Ends,
    Matching,
    Measured,
    Problem,
    Replayed,
    StudentRule,
    Unroll,
    UnrolledGradient,
    Whole,
)

Augment = Callable[[Tensor], Tensor] | Sequence[Drawn] | None
End = EndLoss | Callable[[Tensor], Tensor]


def unrolled_gradient(
    student: Student | Callable[..., Tensor],
    theta_start: Tensor,
    end: End | Mapping[int, End] | Ends,
    data: Sequence[Tensor],
    learning_rate: float | Tensor,
    batches: Sequence[Tensor],
    *,
    rule: str | StudentRule = "sgd",
    how: str | Unroll = "replayed",
    augment: Augment = None,
    first_back: int = 0,
    of_start: bool = False,
) -> UnrolledGradient:
    """The exact gradient of what N steps of training lead to, by all that they were made with.

    The student follows ``theta <- rule(theta, grad loss(theta, *(tensor[batch] for tensor in data)), rate)``; then the
    end is worth ``end(theta_N)``. Differentiated by every floating-point tensor of ``data`` (images, label logits,
    weights of examples, both inputs of a two-tower network, ..), by the learning rate, and by ``theta_start``. Memory
    for activations does not grow with N.

    Args:
        student: a `Student`, whose loss takes images and label logits, or any function of theta (P,) and the tensors
            of a batch that gives a scalar. It must not draw or change anything.
        theta_start: flat parameters (P,).
        end: a function of theta (P,) that gives a scalar, such as the loss on real data; an `EndLoss`; several of
            them, by the number of steps after which each is taken (their sum counts); or an `Ends`.
        data: tensors (n, ..), one row for an example each. Whole numbers, such as class indices, are not learned.
        learning_rate: a number or (), or a tensor (N,), one for each step.
        batches: one index tensor per student step; rows may repeat within and across steps.
        rule: "sgd", "momentum", "adam", or a `StudentRule`. Its state begins at zero and is carried back, exactly.
        how: "replayed" (exact, flat memory), "direct" (exact, keeps the whole graph), or an `Unroll`.
        augment: of the first tensor; see `matching_gradient`.
        first_back: steps before this one are made, and not differentiated (truncated backpropagation).
        of_start: whether the gradient by ``theta_start`` is wanted (`.theta_start`, else None).

    Returns:
        ``.loss`` (), ``.tensors`` (gradients by each of ``data``; None for whole numbers), ``.learning_rate``,
        ``.theta_start`` and ``.end.theta_P``, each shaped like what it belongs to.

    Raises:
        ConfigError: shapes, dtypes or indices that do not fit; an end that does not depend on theta.
    """
    learner = student if isinstance(student, Student) else _Function(student)
    if isinstance(learner, Student):
        learner = learner.to(theta_start.device, theta_start.dtype)
    rate = _rate(learning_rate, theta_start, len(batches))
    _check_data(theta_start, data)
    _check_batches(batches, len(data[0]))
    require(
        0 <= first_back < len(batches), "first_back", f"got {first_back}", f"0 .. {len(batches) - 1}, a student step"
    )
    unroll = _unroll(how)
    compiles = isinstance(unroll, Replayed) and unroll.compile
    require(not compiles or isinstance(student, Student), "how", "compiles a function of yours", "a Student to compile")
    indices = [torch.as_tensor(batch, device=theta_start.device).long() for batch in batches]
    problem = Problem(
        student=learner,
        theta_start_P=theta_start.detach(),
        ends=_ends(end, len(batches)),
        rows=Whole(data, indices),
        learning_rate=rate,
        augment=_per_step(augment, len(batches)),
        rule=_rule(rule),
        first_back=first_back,
        of_start=of_start,
    )
    return unroll(problem)


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
) -> UnrolledGradient:
    """Loss and gradients of trajectory matching through N plain SGD steps of a student.

    Args:
        network: the student's layers; its own parameter values are not used or changed. With
            ``how=Replayed(compile=True)`` give one `Student` to all calls: it keeps the compiled code.
        theta_start: where the student starts, flat parameters (P,) in ``network.parameters()`` order.
        theta_target: where it should arrive, likewise.
        images: (n, C, H, W).
        labels: (n, K) logits; softmax is taken inside the soft cross-entropy.
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
    rows, drawn = Whole((images, labels), indices), _per_step(augment, len(batches))
    problem = Problem(
        student=student,
        theta_start_P=theta_start.detach(),
        ends=At({len(batches): Matching.between(theta_start.detach(), theta_target.detach())}),
        rows=rows,
        learning_rate=rate,
        augment=drawn,
    )
    return _unroll(how)(problem)


def _unroll(how: str | Unroll) -> Unroll:
    return how if not isinstance(how, str) else _member(UNROLLS.members, how, "how")()


def _member(members: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in members:
        raise ConfigError(where, f"unknown {name!r}{did_you_mean(name, members)}", allowed=", ".join(members))
    return members[name]


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
    _check_batches(batches, len(images))
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


def _check_batches(batches: Sequence[Tensor], num_rows: int) -> None:
    require(bool(len(batches)), "batches", "empty", "one index tensor per student step")
    for step, batch in enumerate(batches):
        rows = torch.as_tensor(batch)
        indices = not rows.is_floating_point() and rows.ndim == 1
        require(indices, f"batches[{step}]", f"is {rows.dtype} {tuple(rows.shape)}", "whole numbers (B,)")
        inside = rows.numel() and int(rows.min()) >= 0 and int(rows.max()) < num_rows
        require(bool(inside), f"batches[{step}]", "rows outside the data", f"0 .. {num_rows - 1}")


def _check_data(start: Tensor, data: Sequence[Tensor]) -> None:
    require(start.ndim == 1, "theta_start", f"shape {tuple(start.shape)}", "(P,)")
    require(bool(len(data)), "data", "empty", "tensors with a row for each example")
    for number, tensor in enumerate(data):
        where = f"data[{number}]"
        require(
            tensor.ndim >= 1 and len(tensor) == len(data[0]),
            where,
            f"shape {tuple(tensor.shape)}",
            f"({len(data[0])}, ..), as data[0]",
        )
        fits = not tensor.is_floating_point() or tensor.dtype == start.dtype
        require(fits, where, f"is {tensor.dtype}", f"{start.dtype}, as theta_start, or whole numbers")


def _rate(learning_rate: float | Tensor, start: Tensor, num_steps: int) -> Tensor:
    known = isinstance(learning_rate, int | float | Tensor)
    require(known, "learning_rate", f"got {learning_rate!r}", "a number or a tensor")
    rate = torch.as_tensor(learning_rate, dtype=start.dtype, device=start.device).detach()
    fits = rate.ndim == 0 or tuple(rate.shape) == (num_steps,)
    require(fits, "learning_rate", f"shape {tuple(rate.shape)}", f"() or ({num_steps},), one for each step")
    return rate


def _ends(end: Any, num_steps: int) -> Ends:
    if hasattr(end, "follow"):
        return end
    losses = end if isinstance(end, Mapping) else {num_steps: end}
    require(bool(losses), "end", "empty", "a loss after one step at least")
    for step, loss in losses.items():
        counted = isinstance(step, int) and 1 <= step <= num_steps
        require(counted, "end", f"a loss after {step!r} steps", f"after 1 .. {num_steps}")
        usable = isinstance(loss, EndLoss) or callable(loss)
        require(usable, "end", f"got {loss!r}", "a function of theta (P,) that gives a scalar, or an EndLoss")
    return At({step: loss if isinstance(loss, EndLoss) else Measured(loss) for step, loss in losses.items()})


def _rule(rule: str | StudentRule) -> StudentRule:
    return rule if not isinstance(rule, str) else _member(STUDENT_RULES.members, rule, "rule")()


@dataclass(frozen=True, eq=False)
class _Function:
    """A researcher's own loss."""

    loss: Callable[..., Tensor]
