"""What only performance matching does: windows, blocks, rates of steps, pools; its gradients are in the contract."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from distributed_dd.errors import ConfigError
from distributed_dd.experiment import experiment_of
from distributed_dd.family import identity
from distributed_dd.learning.chance import generator
from distributed_dd.learning.clipping import Clipped, RunningNorm
from distributed_dd.learning.flat import Student
from distributed_dd.learning.networks import MLP
from distributed_dd.methods.performance_matching.batches import Blocks
from distributed_dd.methods.performance_matching.labels import Learned
from distributed_dd.methods.performance_matching.rates import RAW, Each, step_rates
from distributed_dd.methods.performance_matching.real_loss import RealLoss
from distributed_dd.methods.performance_matching.students import Pool
from distributed_dd.methods.performance_matching.windows import LastWindow, RandomWindow, WholeWindow
from distributed_dd.unroll import Alone, Moment
from tests.contracts.small_worlds import COMMON, POINTS

PUBLISHED = {"decay": 0.9, "multiple": 2.0}


def test_a_random_window_ends_anywhere_and_is_as_long_as_it_should_be():
    """Catches an end that never is the last step, and a window that begins before the first."""
    rng = generator(0, "window")
    spans = [RandomWindow(3).draw(7, rng) for _ in range(300)]
    assert {span.num_steps for span in spans} == {3, 4, 5, 6, 7}
    assert all(span.num_steps - span.first_back == 3 for span in spans)
    assert LastWindow(3).draw(7, rng) == (7, 4) and WholeWindow().draw(7, rng) == (7, 0)


def test_blocks_hold_equal_numbers_of_each_class_in_fixed_order():
    classes = torch.arange(3).repeat_interleave(4)
    batches = Blocks(per_class=2).draw(classes, 5, generator(0))
    assert [batch.tolist() for batch in batches[:2]] == [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11]]
    assert all(torch.equal(batches[step], batches[step % 2]) for step in range(5))


def test_rates_of_steps_start_where_they_are_set_and_their_slopes_pass_the_softplus():
    rates = Each()
    held = {RAW: rates.starting(0.02, 5)[RAW].double().requires_grad_()}
    read = rates.read(held, 0.02, 3)
    assert torch.allclose(read, torch.full((3,), 0.02, dtype=torch.float64), rtol=1e-6)
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    (read * weights).sum().backward()
    slopes = rates.slopes({RAW: held[RAW].detach()}, weights)[RAW]
    assert torch.allclose(slopes, held[RAW].grad, rtol=1e-12) and not slopes[3:].any()
    assert torch.equal(step_rates(held[RAW].detach())[:3], read.detach())


def test_learned_labels_start_as_smoothed_classes():
    probabilities = Learned(smoothing=0.2).start(torch.tensor([1, 0]), 4).softmax(1)
    expected = torch.tensor([[0.05, 0.85, 0.05, 0.05], [0.85, 0.05, 0.05, 0.05]])
    assert torch.allclose(probabilities, expected, atol=1e-6)


@pytest.mark.parametrize("rows_at_once", [2, 5, 100])
def test_the_real_loss_some_rows_at_a_time_is_that_of_all(rows_at_once):
    """Catches a short last part that counts as much as a full one."""
    student = Student(MLP(depth=2, width=5).build((1, 2, 2), 3).double())
    rng = generator(0, "real")
    images, classes = torch.randn(7, 1, 2, 2, dtype=torch.float64, generator=rng), torch.arange(7) % 3
    theta = torch.randn(student.num_parameters, dtype=torch.float64, generator=rng).requires_grad_()
    end = RealLoss(student=student, images=images, classes=classes, share=None, rows_at_once=rows_at_once)
    loss, slope = end.slope(theta.detach())
    expected = cross_entropy(student.logits(theta, images), classes)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-13)
    assert torch.allclose(slope, theta.grad, rtol=1e-11, atol=1e-15)
    assert torch.allclose(end.loss(theta.detach()), expected.detach(), rtol=1e-13)


def test_students_of_a_pool_go_on_where_they_ended_and_are_made_anew_when_old():
    """Catches a state of the rule that is lost between outer steps, and networks that live for ever."""
    pool = Pool(num_networks=2, max_age=6).students(lambda *key: torch.full((3,), float(hash(key) % 97)), 1, seed=0)
    for step in range(4):
        begins = [pool.begin(step, number, 2) for number in range(2)]
        ends = [Moment(begin.moment.theta_P + 1, (begin.moment.slots[0] + 2,)) for begin in begins]
        before = {place: pool.members[place] for place in (0, 1)}
        pool.end(step, ends, 3, Alone())
        for place, old in before.items():
            new = pool.members[place]
            if old.age + 3 >= 6:
                assert new.age == 0 and new.updates == 0 and new.number >= 2 and not new.moment.slots[0].any()
            else:
                assert (new.age, new.updates, new.number) == (old.age + 3, old.updates + 3, old.number)
                assert torch.equal(new.moment.theta_P, old.moment.theta_P + 1)
                assert torch.equal(new.moment.slots[0], old.moment.slots[0] + 2)
    assert pool.members.num_made == 2 + 4  # each place in every second outer step, one from the first


def test_the_clip_bounds_images_alone_and_is_nothing_by_default():
    """Catches labels and rates that are clipped too, and a digest of an older run that changes."""
    values = {**COMMON, "data": {"kind": "digits"}, "method": dict(POINTS["bptt"]["method"])}
    free = experiment_of(values).method
    values["method"]["clip"] = "running_norm"
    clipped = experiment_of(values).method
    assert "clip" not in identity(free) and identity(clipped)["clip"] == {"kind": "running_norm", **PUBLISHED}
    rules, images = clipped.optimizers(), free.image_optimizer
    assert rules == free.optimizers() | {"images": Clipped(images, RunningNorm(**PUBLISHED))} and len(rules) == 3


@pytest.mark.parametrize(
    ("point", "changes", "where"),
    [
        ("bptt", {"window": {"kind": "last", "num_steps": 9}}, "window.num_steps"),
        ("bptt", {"unroll": {"kind": "detached"}}, "unroll"),
        ("rat_bptt", {"rates": {"kind": "each"}}, "rates"),
        ("rat_bptt", {"students_per_outer_step": 4}, "students_per_outer_step"),
        ("dd", {"image_optimizer": {"kind": "sgd", "learning_rate": 0.0}}, "image_optimizer.learning_rate"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(point, changes, where):
    values = {**COMMON, "data": {"kind": "digits"}, "method": {**POINTS[point]["method"], **changes}}
    with pytest.raises(ConfigError) as caught:
        experiment_of(values)
    assert caught.value.where.endswith(where)
