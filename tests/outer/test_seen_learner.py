"""A learner of stored rows as methods see it: pictures in, gradients of pictures back."""

import pytest
import torch

from distributed_dd.backends.deepspeed.engine import DeepSpeedRanks
from distributed_dd.backends.local.learner import LocalLearner
from distributed_dd.errors import ConfigError
from distributed_dd.learning.chance import generator
from distributed_dd.learning.set_forms import stored
from distributed_dd.learning.set_forms.formation import Formation
from distributed_dd.learning.update_rules import SGD
from distributed_dd.outer.checkpoint import Checkpoints
from distributed_dd.outer.division import Division
from distributed_dd.outer.learner import Held
from distributed_dd.outer.seen_learner import SeenLearner

SHAPE = (1, 4, 4)
CODEC = Formation(2).fitted(SHAPE, lambda: torch.zeros(0))


def learners(folder, rules=("images",)):
    """A learner of two rows of four pictures each, and the same as methods see it."""
    rng = generator(0, "seen")
    pictures = {
        "images": torch.randn(8, *SHAPE, generator=rng),
        "labels": torch.randn(8, 3, generator=rng),
        "classes": torch.tensor([0, 2]).repeat_interleave(4),
    }
    checkpoints = Checkpoints(folder, "small")
    shard = checkpoints.write_shard(0, 0, 1, 0, stored(pictures, CODEC))
    inner = LocalLearner(checkpoints.saved([shard]), {name: SGD(0.1, 0.5) for name in rules})
    return inner, SeenLearner(inner, CODEC), pictures


def test_a_step_moves_rows_along_the_gradient_of_what_was_seen(tmp_path):
    """Catches a gradient by the pictures that is taken for one by rows, and labels of other pictures."""
    inner, learner, pictures = learners(tmp_path, ("images", "labels"))
    before = inner.kept()
    held = learner.read()
    assert learner.num_rows == 8 and inner.num_rows == 2
    assert torch.equal(held.images, CODEC.decode(before["images"]))
    assert torch.equal(held.labels, pictures["labels"]) and "classes" not in held.tensors
    gradients = {name: held.tensors[name].flip(0).clone() for name in ("images", "labels")}
    leaf = before["images"].clone().requires_grad_()
    (expected,) = torch.autograd.grad((CODEC.decode(leaf) * gradients["images"]).sum(), leaf)
    wanted = before["labels"] - 0.1 * gradients["labels"].reshape(2, 4, 3)
    norm = learner.step(gradients)
    assert torch.allclose(inner.kept()["images"], before["images"] - 0.1 * expected, atol=1e-6)
    assert torch.allclose(inner.kept()["labels"], wanted, atol=1e-6)
    assert float(norm) == pytest.approx(float(expected.square().sum()), rel=1e-5)
    assert {name: tuple(slot.shape) for name, slot in learner.slots().items()} == {
        "momentum.images": (2, *SHAPE),
        "momentum.labels": (2, 4, 3),
    }


def test_what_is_kept_is_seen_with_the_class_of_each_picture(tmp_path):
    inner, learner, pictures = learners(tmp_path)
    kept = learner.kept()
    assert torch.equal(kept["classes"], pictures["classes"])
    assert torch.equal(kept["images"], CODEC.decode(inner.kept()["images"]))
    learner.replace("labels", pictures["labels"] + 1)
    assert torch.equal(learner.read().labels, pictures["labels"] + 1)
    assert inner.kept()["labels"].shape == (2, 4, 3)


def test_a_step_without_a_read_is_refused(tmp_path):
    """Gradients would be taken back through rows that are no more."""
    _, learner, _ = learners(tmp_path)
    gradient = {"images": torch.ones(8, *SHAPE)}
    learner.read()
    learner.step(gradient)
    with pytest.raises(RuntimeError, match="follows a read"):
        learner.step(gradient)


class Part:
    """A learner that has the second row alone at hand."""

    num_rows = 2

    def read(self):
        return Held(1, {"images": torch.ones(1, *SHAPE)})


def test_rows_of_a_rank_begin_at_their_first_picture():
    held = SeenLearner(Part(), CODEC).read()
    assert held.first == 4 and len(held.images) == 4


@pytest.mark.parametrize(("num_ranks", "fits"), [(2, True), (3, False), (4, False), (5, True), (20, False)])
def test_ranks_that_would_cut_an_image_are_refused(num_ranks, fits):
    """10 stored images of 4 pictures: by pictures 4 ranks had 10 each, by images 12, 12, 8 and 8."""
    engine = DeepSpeedRanks(num_ranks=num_ranks)
    division = Division(num_rows=40, pictures=4)
    engine.check(Division(num_rows=40))
    if fits:
        engine.check(division)
    else:
        with pytest.raises(ConfigError, match=r"engine.num_ranks.*10 stored images of 4 pictures"):
            engine.check(division)
