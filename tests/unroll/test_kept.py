"""Student steps that are kept and not replayed: the same numbers, less work, in bounded memory."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import distributed_dd
from distributed_dd.errors import ConfigError
from distributed_dd.learning.flat import Student, flatten
from distributed_dd.learning.networks import MLP, ConvNet
from distributed_dd.outer.live_bytes import peak_live_bytes
from distributed_dd.unroll import Replayed
from distributed_dd.unroll.kept import KeptSteps, bytes_of_a_step
from tests.unroll.test_unroll import GRADIENTS, problem

EVERYTHING = 2**40


def gradients(result):
    return [result.loss, *(getattr(result, name) for name in GRADIENTS)]


@pytest.mark.parametrize("network", [ConvNet(2, 4), MLP(3, 5)], ids=["convnet", "mlp"])
@pytest.mark.parametrize("augmented", [False, True])
def test_how_many_steps_are_kept_decides_about_no_bit(network, augmented):
    given = problem(network, steps=7, augmented=augmented)
    replayed = gradients(distributed_dd.matching_gradient(**given, how="replayed"))
    least, *others = (
        gradients(distributed_dd.matching_gradient(**given, how=Replayed(memory=memory)))
        for memory in (0, 20_000, EVERYTHING)
    )
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(least, other, strict=True))
    for ours, reference in zip(least, replayed, strict=True):
        assert (ours - reference).norm() <= 1e-13 * reference.norm()


def whole_batches(steps):
    given = problem(ConvNet(2, 8), steps=steps, n=16, augmented=False)
    given["batches"] = [torch.arange(16)] * steps
    return given


class Operations(TorchDispatchMode):
    """Counts those of convolutions and matrix products; torch's own counter refuses gradients of gradients."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if (count := flop_registry.get(func._overloadpacket)) is not None:
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def operations(memory, steps):
    with Operations() as counter:
        distributed_dd.matching_gradient(**whole_batches(steps), how=Replayed(memory=memory))
    return counter.total


def test_a_kept_step_does_a_quarter_less():
    """11.7 forward passes of work for a step that is replayed, 8.8 for one that is kept; the newest always is."""
    operations(0, 1)  # measures a step
    replayed, kept = (operations(memory, 9) - operations(memory, 1) for memory in (None, EVERYTHING))
    assert 0.70 < kept / replayed < 0.78
    assert operations(0, 9) == operations(None, 9) - (operations(None, 1) - operations(0, 1))


def test_memory_is_what_is_allowed_and_a_step():
    def extra(memory, steps):
        given = whole_batches(steps)
        stored = (steps + 1) * given["theta_start"].nbytes
        return peak_live_bytes(lambda: distributed_dd.matching_gradient(**given, how=Replayed(memory=memory))) - stored

    given = whole_batches(1)
    student = Student(given["network"])
    one = bytes_of_a_step(student, given["theta_start"], given["images"], given["labels"])
    base = extra(0, 30)
    assert extra(0, 10) == pytest.approx(base, rel=0.05)
    for number in (2, 5):
        assert extra(number * one, 30) <= base + number * one * 1.05
    assert extra(EVERYTHING, 30) > base + 20 * one  # the count sees what is kept


def test_the_newest_steps_are_the_kept_ones():
    given = whole_batches(1)
    student = Student(given["network"]).to(torch.device("cpu"), torch.float64)
    theta, batch = flatten(given["network"]), (given["images"], given["labels"])
    one = bytes_of_a_step(student, theta, *batch)
    steps = KeptSteps(student, lambda *_: theta, 3 * one + 1, first_back=2)
    for _ in range(8):
        steps.gradient(theta, *batch)
    assert steps.num_kept == 3
    vector = torch.ones_like(theta)
    with torch.no_grad():
        outcomes = [steps.reverse_of(step)(theta, vector, *batch) for step in (7, 4, 3)]
    assert steps.num_kept == 2
    for s, ds_theta, ds_batch in outcomes[1:]:
        assert torch.equal(s, outcomes[0][0]) and torch.equal(ds_theta, outcomes[0][1])
        assert all(torch.equal(a, b) for a, b in zip(ds_batch, outcomes[0][2], strict=True))


def test_windows_and_nearest_steps_are_kept_alike():
    """Steps before the window are not kept; those that nothing is carried back through are left out."""
    torch.manual_seed(0)
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    given = dict(
        student=lambda theta, x, y: ((torch.tanh(x @ theta[:3]) - y) ** 2).mean() + theta[3:].square().sum(),
        theta_start=torch.randn(5, dtype=torch.float64),
        end=lambda theta: theta.square().sum(),
        data=(x, y),
        learning_rate=0.1,
        batches=[torch.tensor([0, 1, 2]), torch.tensor([3, 4]), torch.tensor([5, 0]), torch.tensor([1, 3, 5])],
        first_back=1,
        rule="adam",
    )
    reference = distributed_dd.unrolled_gradient(**given)
    kept = distributed_dd.unrolled_gradient(**given, how=Replayed(memory=EVERYTHING))
    for ours, theirs in zip(kept.tensors, reference.tensors, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-15)


def test_compiled_steps_are_not_kept():
    with pytest.raises(ConfigError, match="memory"):
        Replayed(compile=True, memory=1)
